"""A package's network with its weights on a device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from conveyor.errors import PackageError, Problem
from conveyor.nn.models import TaskModel, build
from conveyor.repository.files import MANIFEST, WEIGHTS
from conveyor.repository.manifest import read_manifest
from conveyor.repository.weights import check_tensors, read_header, read_tensors

__all__ = ["load_network", "prepare_torch", "resolve_device"]

# Small recurrences do not scale over threads: one device thread, one computing thread.
_CPU_THREADS = 1


def resolve_device(device: str) -> torch.device:
    """The device of a name: `cpu`, `cuda`, `cuda:N`, or `auto`: CUDA if there is any.

    Raises:
        ValueError: It does not exist here.
    """
    if device == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    resolved = torch.device(device)
    if resolved.type == "cuda":
        index = resolved.index or 0
        if index >= torch.cuda.device_count():
            raise ValueError(
                f"device {device!r} does not exist; this machine has {torch.cuda.device_count()} CUDA devices"
            )
        return torch.device("cuda", index)
    return resolved


def prepare_torch() -> None:
    """Sets what holds for the whole process: threads, and no rounding beyond what a precision says."""
    torch.set_num_threads(_CPU_THREADS)
    # TF32 would round the operands of every product to 10 bits and change answers.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def load_network(directory: Path, device: torch.device) -> TaskModel:
    """Builds the network without memory, compares names and shapes, and only then reads the weights.

    Raises:
        PackageError: The weights do not fit the description, or the device has no room for them.
    """
    weights, spec = directory / WEIGHTS, read_manifest(directory / MANIFEST)
    with torch.device("meta"), _NoInitialisation():
        expected = {name: tuple(tensor.shape) for name, tensor in build(spec).state_dict().items()}
    problems = check_tensors(read_header(weights), expected)
    if problems:
        raise PackageError(problems)
    tensors = read_tensors(weights)
    try:
        # Once more: to give the first one memory, torch would import its symbolic shapes, for a second.
        with device, _NoInitialisation():
            network = build(spec)
        network.load_state_dict({name: torch.from_numpy(array) for name, array in tensors.items()}, strict=True)
    except RuntimeError as error:
        # The device has no room for it, most likely; the others may go on.
        raise PackageError([Problem(WEIGHTS, "", f"cannot be put on {device}: {error}")]) from error
    return network.eval().requires_grad_(False)


class _NoInitialisation(TorchFunctionMode):
    """Leaves new parameters as they are: they have no memory yet, and the weights come from a file."""

    def __torch_function__(
        self, func: Callable[..., Any], _: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return (kwargs or {}).get("tensor", args[0] if args else None)
        return func(*args, **(kwargs or {}))
