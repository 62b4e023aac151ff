"""An LSTM layer on the CPU whose weights are put in the library's own order once, not in every call."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from conveyor.nn.recurrent import State

__all__ = ["PackedLstm"]

# What torch calls the cell in its enumeration of recurrent cells.
_LSTM = 2


class PackedLstm(nn.Module):
    """One direction of one layer through oneDNN, as `torch.nn.LSTM` runs it and with the same bits.

    The module orders its weights anew in every call, which costs as much as some ten steps of a small batch (75 µs of
    132 µs for 2 rows of 4 steps, 112 inputs, 128 units). Torch's own compiler orders them beforehand, by the operator
    that is used here.

    Args:
        module: The layer in float32 on the CPU, whose weights are copied.
        dtype: `torch.float32`, or `torch.bfloat16`: weights, inputs, outputs and what is carried between calls. States
            go to and fro as float32 and lose nothing by it, since every call leaves values of `dtype`.
    """

    def __init__(self, module: nn.LSTM, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype
        self._hidden = module.hidden_size
        weights = [parameter.detach().to(dtype) for parameter in module.parameters()]
        self.num_bytes = sum(weight.nbytes for weight in weights)
        reverse, has_biases, batch_first = False, True, False
        order: Any = torch.ops.mkldnn._reorder_mkldnn_rnn_layer_weight
        self._weights = [*order(weights[0], weights[1], self._hidden, reverse, has_biases, batch_first), *weights[2:]]

    @staticmethod
    def is_available() -> bool:
        """Whether this torch has oneDNN."""
        return bool(torch._C._has_mkldnn)

    def forward(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Runs the layer: shapes and dtypes as in `RecurrentStack.call`."""
        # The library takes steps first, and memory in order.
        steps_first = x.transpose(0, 1).to(self._dtype).contiguous()
        if state is None:
            h = c = steps_first.new_zeros(x.shape[0], self._hidden)
        else:
            h, c = (part[0].to(self._dtype) for part in state)
        layer: Any = torch.ops.aten.mkldnn_rnn_layer
        reverse, bidirectional, batch_first, train = False, False, False, False
        sizes = self._hidden, 1, True
        outputs, h, c, _ = layer(
            steps_first, *self._weights, h, c, reverse, [], _LSTM, *sizes, bidirectional, batch_first, train
        )
        return outputs.float().transpose(0, 1), (h.float()[None], c.float()[None])
