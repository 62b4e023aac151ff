"""The ways in which recurrent layers can be computed, of which a plan chooses one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import nn

from conveyor.engine.executors.device_kind import has_fast_bfloat16
from conveyor.engine.executors.graph_layer import (
    FEWEST_ROWS_GRAPH,
    GraphLayer,
    Run,
    open_onnxruntime,
    open_openvino,
)
from conveyor.engine.executors.kernel.layer import install_kernel
from conveyor.engine.executors.kernel.library import find_kernel
from conveyor.nn.models import TaskModel
from conveyor.nn.packed import PackedLstm
from conveyor.nn.recurrent import FEWEST_ROWS
from conveyor.nn.reduced import ReducedLayer
from conveyor.spec import RecurrentSpec

__all__ = ["CANDIDATES", "KERNEL", "REFERENCE", "Candidate"]

# The executor that is our own.
KERNEL = "kernel"


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
    install: Callable[[TaskModel], None]

    def __str__(self) -> str:
        return f"{self.executor} {self.precision}"


def _no_bfloat16(device: torch.device, spec: RecurrentSpec) -> str | None:
    if device.type == "cpu":
        if not has_fast_bfloat16():
            return "this CPU has no bfloat16 instructions"
        if spec.cell != "lstm":
            return f"torch has no bfloat16 kernel of a {spec.cell} for CPUs"
    return None


def _not_installed(library: str) -> Callable[[torch.device, RecurrentSpec], str | None]:
    return lambda _device, _spec: None if find_spec(library) else f"{library} is not installed"


def _none(_device: torch.device, _spec: RecurrentSpec) -> str | None:
    return None


def _no_kernel(dtype: torch.dtype) -> Callable[[torch.device, RecurrentSpec], str | None]:
    def obstacle(_device: torch.device, spec: RecurrentSpec) -> str | None:
        kernel = find_kernel()
        if kernel is None:
            return "no kernel was compiled when conveyor was installed, for want of a C compiler"
        if dtype not in kernel.precisions:
            return f"the kernel for this CPU ({kernel.variant}) has no {str(dtype).removeprefix('torch.')}"
        return None if spec.cell == "lstm" else f"the kernel computes no {spec.cell}"

    return obstacle


def _install_kernel(dtype: torch.dtype) -> Callable[[TaskModel], None]:
    def install(model: TaskModel) -> None:
        kernel = find_kernel()
        assert kernel is not None
        install_kernel(model, kernel, dtype)

    return install


def _install_graph(open_graph: Callable[[bytes], Run]) -> Callable[[TaskModel], None]:
    def install(model: TaskModel) -> None:
        model.recurrent.use(lambda module: GraphLayer(module, open_graph), FEWEST_ROWS_GRAPH[model.recurrent.spec.cell])

    return install


def _install_torch(dtype: torch.dtype) -> Callable[[TaskModel], None]:
    def make(module: nn.RNNBase) -> nn.Module:
        on_cpu = next(module.parameters()).device.type == "cpu"
        if isinstance(module, nn.LSTM) and on_cpu and PackedLstm.is_available():
            return PackedLstm(module, dtype)
        return module if dtype == torch.float32 else ReducedLayer(module, dtype)

    return lambda model: model.recurrent.use(make, FEWEST_ROWS[model.recurrent.spec.cell])


REFERENCE = Candidate("torch", "float32", ("cpu", "cuda"), _none, _install_torch(torch.float32))

# The reference first; where a precision is asked for, the first that can.
CANDIDATES: Sequence[Candidate] = (
    REFERENCE,
    Candidate(KERNEL, "float32", ("cpu",), _no_kernel(torch.float32), _install_kernel(torch.float32)),
    Candidate(KERNEL, "bfloat16", ("cpu",), _no_kernel(torch.bfloat16), _install_kernel(torch.bfloat16)),
    Candidate(KERNEL, "int8", ("cpu",), _no_kernel(torch.int8), _install_kernel(torch.int8)),
    Candidate("onnxruntime", "float32", ("cpu",), _not_installed("onnxruntime"), _install_graph(open_onnxruntime)),
    Candidate("openvino", "float32", ("cpu",), _not_installed("openvino"), _install_graph(open_openvino)),
    Candidate("torch", "bfloat16", ("cpu", "cuda"), _no_bfloat16, _install_torch(torch.bfloat16)),
    # cuDNN's persistent kernels know it and not bfloat16; on CPUs it has neither range nor speed.
    Candidate("torch", "float16", ("cuda",), _none, _install_torch(torch.float16)),
)
