"""A recurrent layer in half the bits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from conveyor.nn.recurrent import State

__all__ = ["ReducedLayer"]


class ReducedLayer(nn.Module):
    """One direction of one layer in bfloat16 or float16: weights, inputs, outputs and what is carried between calls.

    The states go to and fro as float32 and lose nothing by it, since every call leaves values of `dtype`. So a row
    that is cut anywhere gives the same bits.

    Args:
        module: The layer in float32; it is changed and must not be used any more.
        dtype: `torch.bfloat16` or `torch.float16`.
    """

    def __init__(self, module: nn.RNNBase, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype
        self._module = module.to(dtype)

    def forward(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Runs the layer: shapes and dtypes as in `RecurrentStack.call`."""
        if isinstance(state, tuple):
            outputs, (h, c) = self._module(x.to(self._dtype), (state[0].to(self._dtype), state[1].to(self._dtype)))
            return outputs.float(), (h.float(), c.float())
        reduced = None if state is None else state.to(self._dtype)
        outputs, after = self._module(x.to(self._dtype), reduced)
        if isinstance(after, tuple):
            return outputs.float(), (after[0].float(), after[1].float())
        return outputs.float(), after.float()
