"""The reference cells are torch's cells."""

import pytest
import torch
from torch import Tensor, nn

from conveyor.nn.cells import run_stack, split_weights

TORCH_MODULES = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


def reference_weights(module: nn.RNNBase, cell: str) -> list[list]:
    """The weights of a torch module, by layer and direction."""
    suffixes = ("", "_reverse") if module.bidirectional else ("",)
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    return [
        [split_weights(cell, *(getattr(module, f"{name}_l{layer}{suffix}") for name in names)) for suffix in suffixes]
        for layer in range(module.num_layers)
    ]


def run_packed(module: nn.RNNBase, x: Tensor, lengths: list[int]) -> tuple[Tensor, Tensor]:
    """A torch module over packed sequences: its outputs, and the last layer's final states side by side."""
    packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
    outputs, state = module(packed)
    hidden = state[0] if isinstance(module, nn.LSTM) else state
    unpacked, _ = nn.utils.rnn.pad_packed_sequence(outputs, batch_first=True, total_length=x.shape[1])
    return unpacked, torch.cat(list(hidden[-2:] if module.bidirectional else hidden[-1:]), dim=-1)


@pytest.mark.parametrize("cell", TORCH_MODULES)
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_reference_equals_torch_over_packed_rows(cell: str, layers: int, bidirectional: bool) -> None:
    """Outputs and final states equal torch's for rows of mixed lengths, to 1e-6 in float64."""
    torch.manual_seed(3)
    module = TORCH_MODULES[cell](
        5, 4, num_layers=layers, bidirectional=bidirectional, batch_first=True, dtype=torch.float64
    )
    x, lengths = torch.randn(4, 9, 5, dtype=torch.float64), [9, 1, 4, 6]
    expected = run_packed(module, x, lengths)

    actual = run_stack(reference_weights(module, cell), x, lengths)

    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)


def test_reference_never_reads_padding() -> None:
    """What lies past a row's length changes nothing, not even if it is not a number; an empty row gives zeros."""
    torch.manual_seed(4)
    module = nn.GRU(2, 3, bidirectional=True, batch_first=True)
    weights = reference_weights(module, "gru")
    x = torch.randn(3, 5, 2)
    expected = run_stack(weights, x, [0, 2, 5])
    x[0], x[1, 2:] = torch.nan, torch.nan

    outputs, final = run_stack(weights, x, [0, 2, 5])

    assert torch.equal(expected[0], outputs)
    assert torch.equal(expected[1], final)
    assert torch.equal(torch.zeros(6), final[0])
