"""An LSTM layer whose weights are ordered beforehand is the same layer."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from conveyor.nn.packed import PackedLstm

pytestmark = pytest.mark.skipif(not PackedLstm.is_available(), reason="this torch has no oneDNN")


@settings(max_examples=40)
@given(
    rows=st.integers(2, 70),
    steps=st.integers(1, 40),
    width=st.integers(1, 40),
    hidden=st.sampled_from([8, 16, 32, 64]),
    cut=st.integers(0, 40),
)
def test_it_is_torchs_lstm_whole_or_cut(rows: int, steps: int, width: int, hidden: int, cut: int) -> None:
    """Outputs and states, with carried states too; cut anywhere, it gives the same bits."""
    torch.manual_seed(rows * steps)
    module = nn.LSTM(width, hidden, batch_first=True).eval().requires_grad_(False)
    x = torch.randn(rows, steps, width)
    with torch.inference_mode():
        expected, (h, c) = module(x)
        packed = PackedLstm(module, torch.float32)
        outputs, state = packed(x, None)
        assert isinstance(state, tuple)
        for left, right in ((expected, outputs), (h, state[0]), (c, state[1])):
            assert torch.allclose(left, right, atol=1e-6)

        cut = min(cut, steps - 1)
        if cut:
            first, between = packed(x[:, :cut], None)
            second, after = packed(x[:, cut:], between)
            assert torch.equal(outputs, torch.cat([first, second], dim=1))
            assert torch.equal(state[0], after[0])
            assert torch.equal(state[1], after[1])
