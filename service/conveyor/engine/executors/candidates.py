"""The ways in which recurrent layers can be computed, of which a plan chooses one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import nn

from conveyor.engine.executors.device_kind import has_fast_bfloat16
from conveyor.nn.packed import PackedLstm
from conveyor.nn.recurrent import FEWEST_ROWS, RecurrentStack
from conveyor.nn.reduced import ReducedLayer
from conveyor.spec import RecurrentSpec

__all__ = ["CANDIDATES", "REFERENCE", "Candidate"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to compute the recurrent layers of a network; everything else of it stays as it is, in float32.

    executor, precision: its name: what computes, and in which arithmetic.
    devices: the types of device it is for.
    obstacle: says why a network can't be computed so on such a device, or None if it can.
    install: makes a network compute so; its float32 weights may be gone afterwards.
    """

    executor: str
    precision: str
    devices: tuple[str, ...]
    obstacle: Callable[[torch.device, RecurrentSpec], str | None]
    install: Callable[[RecurrentStack], None]

    def __str__(self) -> str:
        return f"{self.executor} {self.precision}"


def _no_bfloat16(device: torch.device, spec: RecurrentSpec) -> str | None:
    if device.type == "cpu":
        if not has_fast_bfloat16():
            return "this CPU has no bfloat16 instructions"
        if spec.cell != "lstm":
            return f"torch has no bfloat16 kernel of a {spec.cell} for CPUs"
    return None


def _no_onnxruntime(_device: torch.device, _spec: RecurrentSpec) -> str | None:
    return None if find_spec("onnxruntime") else "onnxruntime is not installed"


def _none(_device: torch.device, _spec: RecurrentSpec) -> str | None:
    return None


def _install_onnx(stack: RecurrentStack) -> None:
    from conveyor.engine.executors.onnx_layer import FEWEST_ROWS_ONNX, OnnxLayer

    stack.use(OnnxLayer, FEWEST_ROWS_ONNX[stack.spec.cell])


def _install_torch(dtype: torch.dtype) -> Callable[[RecurrentStack], None]:
    def make(module: nn.RNNBase) -> nn.Module:
        on_cpu = next(module.parameters()).device.type == "cpu"
        if isinstance(module, nn.LSTM) and on_cpu and PackedLstm.is_available():
            return PackedLstm(module, dtype)
        return module if dtype == torch.float32 else ReducedLayer(module, dtype)

    return lambda stack: stack.use(make, FEWEST_ROWS[stack.spec.cell])


REFERENCE = Candidate("torch", "float32", ("cpu", "cuda"), _none, _install_torch(torch.float32))

# The reference first; where a precision is asked for, the first that can.
CANDIDATES: Sequence[Candidate] = (
    REFERENCE,
    Candidate("onnxruntime", "float32", ("cpu",), _no_onnxruntime, _install_onnx),
    Candidate("torch", "bfloat16", ("cpu", "cuda"), _no_bfloat16, _install_torch(torch.bfloat16)),
    # cuDNN's persistent kernels know it and not bfloat16; on CPUs it has neither range nor speed.
    Candidate("torch", "float16", ("cuda",), _none, _install_torch(torch.float16)),
)
