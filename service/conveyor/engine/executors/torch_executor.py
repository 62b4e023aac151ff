"""Batches through torch, on the CPU or on a CUDA device, in float32."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from conveyor.domain import ModelKey
from conveyor.engine.executors.port import Batch, BatchResult, OutOfDeviceMemory
from conveyor.errors import PackageError, Problem
from conveyor.nn.models import TaskModel, build
from conveyor.nn.scan import RowScan, advance, read_out
from conveyor.repository.files import MANIFEST, WEIGHTS
from conveyor.repository.manifest import read_manifest
from conveyor.repository.weights import check_tensors, read_header, read_tensors
from conveyor.wire.messages import Inputs

__all__ = ["TorchExecutor"]

# Small recurrences do not scale over threads: one device thread, one computing thread.
_CPU_THREADS = 1


class TorchExecutor:
    """`Executor[RowScan]` over `conveyor.nn`, the float32 reference on every device.

    Args:
        device: `cpu`, `cuda`, `cuda:N`, or `auto`: CUDA if there is any.

    Raises:
        ValueError: The device does not exist here.
    """

    def __init__(self, device: str) -> None:
        self._device = _resolve(device)
        self._models: dict[ModelKey, TaskModel] = {}
        torch.set_num_threads(_CPU_THREADS)
        # TF32 would round the operands of every product to 10 bits and change answers.
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False

    @property
    def device(self) -> str:
        """The device by name."""
        return str(self._device)

    def load(self, key: ModelKey, directory: Path) -> None:
        """Builds the network without memory, compares names and shapes, and only then reads the weights."""
        weights = directory / WEIGHTS
        with torch.device("meta"), _NoInitialisation():
            model = build(read_manifest(directory / MANIFEST))
        expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        problems = check_tensors(read_header(weights), expected)
        if problems:
            raise PackageError(problems)
        tensors = read_tensors(weights)
        try:
            model.to_empty(device=self._device)
            model.load_state_dict({name: torch.from_numpy(array) for name, array in tensors.items()}, strict=True)
        except RuntimeError as error:
            # The device has no room for it, most likely; the others may go on.
            raise PackageError([Problem(WEIGHTS, "", f"cannot be put on {self._device}: {error}")]) from error
        self._models[key] = model.eval().requires_grad_(False)

    def blank(self, key: ModelKey, rows: int, steps: int) -> Inputs:
        """Inputs of a model's width and dtype that are all padding."""
        spec = self._models[key].spec
        if spec.task == "forecast":
            return np.zeros((rows, steps, spec.series.width), dtype=np.float32)
        return np.zeros((rows, steps, len(spec.text.columns)), dtype=np.int32)

    def run(self, key: ModelKey, batch: Batch) -> BatchResult:
        """Computes a batch; the arrays are copies on the host."""
        model = self._models[key]
        with _inference():
            inputs = torch.from_numpy(batch.inputs).to(self._device)
            lengths = torch.from_numpy(batch.lengths).to(self._device, torch.int64)
            return _to_host(model, model.predict(inputs, lengths, batch.stairs))

    def begin(self, key: ModelKey, inputs: Inputs) -> RowScan:
        """Puts a long row on the device."""
        with _inference():
            return RowScan(self._models[key], torch.from_numpy(inputs).to(self._device))

    def advance(self, key: ModelKey, scans: Sequence[RowScan], phase: int, steps: int, rows: int) -> None:
        """Runs the next steps of long rows in one call."""
        with _inference():
            advance(self._models[key], scans, phase, steps, rows)
            if self._device.type == "cuda":
                # So that the caller measures the work and not its launch, and never queues up more than one chunk.
                torch.cuda.current_stream(self._device).synchronize()

    def finish(self, key: ModelKey, scan: RowScan) -> BatchResult:
        """The result of a long row."""
        model = self._models[key]
        with _inference():
            return _to_host(model, read_out(model, scan))

    def unload(self, key: ModelKey) -> None:
        """Forgets a model; CUDA memory goes back to the device."""
        del self._models[key]
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def memory_bytes(self) -> Mapping[str, int]:
        """`weights` on every device; on CUDA also what the allocator uses and holds."""
        weights = sum(
            parameter.numel() * parameter.element_size()
            for model in self._models.values()
            for parameter in model.parameters()
        )
        if self._device.type != "cuda":
            return {"weights": weights}
        return {
            "weights": weights,
            "allocated": torch.cuda.memory_allocated(self._device),
            "reserved": torch.cuda.memory_reserved(self._device),
        }


def _resolve(device: str) -> torch.device:
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


class _NoInitialisation(TorchFunctionMode):
    """Leaves new parameters as they are: they have no memory yet, and the weights come from a file."""

    def __torch_function__(
        self, func: Callable[..., Any], _: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return (kwargs or {}).get("tensor", args[0] if args else None)
        return func(*args, **(kwargs or {}))


@contextmanager
def _inference() -> Iterator[None]:
    """Torch without gradients, its ways of saying that memory ran out made one."""
    try:
        with torch.inference_mode():
            yield
    except torch.OutOfMemoryError as error:
        raise OutOfDeviceMemory(str(error)) from error
    except RuntimeError as error:
        # The CPU's allocator has no exception of its own.
        if "can't allocate memory" in str(error):
            raise OutOfDeviceMemory(str(error)) from error
        raise


def _to_host(model: TaskModel, outputs: Mapping[str, torch.Tensor]) -> BatchResult:
    return BatchResult({name: tensor.cpu().numpy() for name, tensor in outputs.items()}, model.stepwise)
