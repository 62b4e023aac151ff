"""A recurrent layer as an ONNX graph, run by ONNX Runtime or OpenVINO, on the CPU in float32."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from conveyor.engine.executors.onnx_graph import INPUTS, recurrent_graph
from conveyor.nn.recurrent import State

__all__ = ["FEWEST_ROWS_GRAPH", "GraphLayer", "Run", "open_onnxruntime", "open_openvino"]

# Rows of a call at least: a plain cell's products take another kernel for one row, which rounds differently.
FEWEST_ROWS_GRAPH = {"rnn": 2, "gru": 1, "lstm": 1}

# Rows × steps of one call. ONNX Runtime keeps the input products of a whole call; beyond this they leave the cache
# (64 rows of 200 steps of 128 units: 38.2 ms in one call, 34.8 ms in pieces) and its memory grows with the batch.
_ROW_STEPS = 2048

_Array = npt.NDArray[np.float32]
# What is fed by name → what comes out, in order.
Run = Callable[[Mapping[str, _Array]], Sequence[_Array]]


class GraphLayer(nn.Module):
    """One direction of one layer as an ONNX operator of its own, with carried states.

    Args:
        module: The layer in float32 on the CPU, whose weights are copied.
        open_graph: Makes a serialised graph ready to run, on one thread.
    """

    def __init__(self, module: nn.RNNBase, open_graph: Callable[[bytes], Run]) -> None:
        super().__init__()
        self._cell = module.mode.removesuffix("_TANH").lower()
        self._hidden = module.hidden_size
        weights = [parameter.detach().numpy() for parameter in module.parameters()]
        self.num_bytes = sum(array.nbytes for array in weights)
        self._run = open_graph(recurrent_graph(self._cell, weights[:2], weights[2:]))

    def forward(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Runs the layer: shapes and dtypes as in `RecurrentStack.call`."""
        rows, steps, _ = x.shape
        # The operator takes steps first, and the libraries take memory in order as it is.
        steps_first = x.transpose(0, 1).contiguous().numpy()
        carried = self._to_arrays(state, rows)
        found = []
        piece = max(1, _ROW_STEPS // rows)
        for first in range(0, steps, piece):
            outputs, *carried = self._run(
                dict(zip(INPUTS, [steps_first[first : first + piece], *carried], strict=False))
            )
            found.append(outputs)
        whole = torch.from_numpy(found[0] if len(found) == 1 else np.concatenate(found))
        after = [torch.from_numpy(array) for array in carried]
        return whole[:, 0].transpose(0, 1), (after[0], after[1]) if self._cell == "lstm" else after[0]

    def _to_arrays(self, state: State | None, rows: int) -> list[_Array]:
        if state is None:
            zeros = np.zeros((1, rows, self._hidden), dtype=np.float32)
            return [zeros, zeros] if self._cell == "lstm" else [zeros]
        return [part.numpy() for part in (state if isinstance(state, tuple) else (state,))]


def open_onnxruntime(graph: bytes) -> Run:
    """By ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # One device thread, one computing thread.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return lambda fed: session.run(None, fed)


def open_openvino(graph: bytes) -> Run:
    """By OpenVINO."""
    import openvino

    core = openvino.Core()
    settings = {
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32",
        # Several engines would else all sit on the first core.
        "ENABLE_CPU_PINNING": False,
    }
    request = core.compile_model(core.read_model(graph), "CPU", settings).create_infer_request()
    # What comes out is copied: the next call writes to the same place.
    return lambda fed: list(request.infer(fed, share_inputs=True).to_tuple())
