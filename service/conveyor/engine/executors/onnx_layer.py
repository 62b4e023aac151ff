"""A recurrent layer through ONNX Runtime, on the CPU in float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from conveyor.engine.executors.onnx_graph import INPUTS, recurrent_graph
from conveyor.nn.recurrent import State

__all__ = ["FEWEST_ROWS_ONNX", "OnnxLayer"]

# Rows of a call at least: a plain cell's products take another kernel for one row, which rounds differently.
FEWEST_ROWS_ONNX = {"rnn": 2, "gru": 1, "lstm": 1}

# Rows × steps of one call. The library keeps the input products of a whole call; beyond this they leave the cache
# (64 rows of 200 steps of 128 units: 38.2 ms in one call, 34.8 ms in pieces) and its memory grows with the batch.
_ROW_STEPS = 2048


class OnnxLayer(nn.Module):
    """One direction of one layer as an ONNX operator of its own, with carried states.

    Args:
        module: The layer in float32 on the CPU, whose weights are copied.
    """

    def __init__(self, module: nn.RNNBase) -> None:
        super().__init__()
        import onnxruntime

        self._cell = module.mode.removesuffix("_TANH").lower()
        self._hidden = module.hidden_size
        weights = [parameter.detach().numpy() for parameter in module.parameters()]
        self.num_bytes = sum(array.nbytes for array in weights)
        options = onnxruntime.SessionOptions()
        # One device thread, one computing thread.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        graph = recurrent_graph(self._cell, weights[:2], weights[2:])
        self._session: Any = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def forward(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Runs the layer: shapes and dtypes as in `RecurrentStack.call`."""
        rows, steps, _ = x.shape
        # The operator takes steps first, and the library takes memory in order as it is.
        steps_first = x.transpose(0, 1).contiguous().numpy()
        carried = self._to_arrays(state, rows)
        found = []
        piece = max(1, _ROW_STEPS // rows)
        for first in range(0, steps, piece):
            fed = dict(zip(INPUTS, [steps_first[first : first + piece], *carried], strict=False))
            outputs, *carried = self._session.run(None, fed)
            found.append(outputs)
        whole = torch.from_numpy(found[0] if len(found) == 1 else np.concatenate(found))
        after = [torch.from_numpy(array) for array in carried]
        return whole[:, 0].transpose(0, 1), (after[0], after[1]) if self._cell == "lstm" else after[0]

    def _to_arrays(self, state: State | None, rows: int) -> list[np.ndarray]:
        if state is None:
            zeros = np.zeros((1, rows, self._hidden), dtype=np.float32)
            return [zeros, zeros] if self._cell == "lstm" else [zeros]
        return [part.numpy() for part in (state if isinstance(state, tuple) else (state,))]
