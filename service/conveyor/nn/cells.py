"""The recurrent cells, each written once from its equations: the reference that the fast path is tested against.

W are weights of the input, U of the recurrent state, b biases; σ is the logistic function, ⊙ the product by element.
There are two biases a gate, as in torch's modules; their sum is what the papers call b, except in a GRU's candidate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "CellWeights",
    "GRUWeights",
    "GateWeights",
    "LSTMState",
    "LSTMWeights",
    "RNNWeights",
    "gru_step",
    "lstm_step",
    "rnn_step",
    "run_stack",
    "split_weights",
]


class GateWeights(NamedTuple):
    """What one gate learns: `weight_input` [hidden, input], `weight_recurrent` [hidden, hidden], biases [hidden]."""

    weight_input: Tensor
    weight_recurrent: Tensor
    bias_input: Tensor
    bias_recurrent: Tensor

    def from_input(self, x: Tensor) -> Tensor:
        """W x + b, the part that the input gives."""
        return x @ self.weight_input.T + self.bias_input

    def from_state(self, h: Tensor) -> Tensor:
        """U h + b, the part that the recurrent state gives."""
        return h @ self.weight_recurrent.T + self.bias_recurrent


class RNNWeights(NamedTuple):
    """A plain cell has no gates, only its candidate."""

    candidate: GateWeights


class GRUWeights(NamedTuple):
    """In torch's order."""

    reset: GateWeights
    update: GateWeights
    candidate: GateWeights


class LSTMWeights(NamedTuple):
    """In torch's order."""

    input: GateWeights
    forget: GateWeights
    cell_candidate: GateWeights
    output: GateWeights


class LSTMState(NamedTuple):
    """The hidden state, which is the cell's output, and the cell state: [rows, hidden] each."""

    h: Tensor
    c: Tensor


CellWeights = RNNWeights | GRUWeights | LSTMWeights


def rnn_step(x: Tensor, h: Tensor, weights: RNNWeights) -> Tensor:
    """One step of a simple recurrent network (Elman 1990): h' = tanh(W x + U h + b).

    Args:
        x: [rows, input].
        h: [rows, hidden], the state before.
        weights: The cell's.

    Returns:
        [rows, hidden], the state after, which is also the output.
    """
    return torch.tanh(weights.candidate.from_input(x) + weights.candidate.from_state(h))


def gru_step(x: Tensor, h: Tensor, weights: GRUWeights) -> Tensor:
    """One step of a gated recurrent unit (Cho et al. 2014), shapes as in `rnn_step`.

        r  = σ(W_r x + U_r h + b_r)                      reset gate
        z  = σ(W_z x + U_z h + b_z)                      update gate
        n  = tanh(W_n x + b_n + r ⊙ (U_n h + b'_n))      candidate
        h' = (1 - z) ⊙ n + z ⊙ h

    As in torch and cuDNN the reset gate is applied after the recurrent product, U_n h; in the paper it is applied to
    h before it. The two differ in value, so weights of one do not serve the other.
    """
    r = torch.sigmoid(weights.reset.from_input(x) + weights.reset.from_state(h))
    z = torch.sigmoid(weights.update.from_input(x) + weights.update.from_state(h))
    n = torch.tanh(weights.candidate.from_input(x) + r * weights.candidate.from_state(h))
    return (1 - z) * n + z * h


def lstm_step(x: Tensor, state: LSTMState, weights: LSTMWeights) -> LSTMState:
    """One step of long short-term memory (Hochreiter & Schmidhuber 1997) with a forget gate (Gers et al. 2000).

        i  = σ(W_i x + U_i h + b_i)          input gate
        f  = σ(W_f x + U_f h + b_f)          forget gate
        g  = tanh(W_g x + U_g h + b_g)       cell candidate
        o  = σ(W_o x + U_o h + b_o)          output gate
        c' = f ⊙ c + i ⊙ g
        h' = o ⊙ tanh(c')

    There are no peephole connections.
    """
    i = torch.sigmoid(weights.input.from_input(x) + weights.input.from_state(state.h))
    f = torch.sigmoid(weights.forget.from_input(x) + weights.forget.from_state(state.h))
    g = torch.tanh(weights.cell_candidate.from_input(x) + weights.cell_candidate.from_state(state.h))
    o = torch.sigmoid(weights.output.from_input(x) + weights.output.from_state(state.h))
    c = f * state.c + i * g
    return LSTMState(o * torch.tanh(c), c)


def split_weights(cell: str, weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor, bias_hh: Tensor) -> CellWeights:
    """The gates of a cell (`rnn`, `gru` or `lstm`) from torch's stacked tensors, [gates x hidden, …] each."""
    kind: type[CellWeights] = {"rnn": RNNWeights, "gru": GRUWeights, "lstm": LSTMWeights}[cell]
    num_gates = len(kind._fields)
    stacked = (torch.chunk(tensor, num_gates) for tensor in (weight_ih, weight_hh, bias_ih, bias_hh))
    return kind(*(GateWeights(*parts) for parts in zip(*stacked, strict=True)))


def run_stack(layers: Sequence[Sequence[CellWeights]], x: Tensor, lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Runs stacked layers row by row and step by step, as plainly as can be.

    Args:
        layers: For each layer the weights of its forward cell and, in a bidirectional stack, of its backward cell.
        x: [rows, steps, input].
        lengths: Steps of each row; the rest is never read.

    Returns:
        outputs: [rows, steps, directions x hidden], zeros past a row's length.
        final: [rows, directions x hidden], each direction's state after its own last step; zeros without steps.
    """
    hidden = sum(weights[0].weight_recurrent.shape[0] for weights in layers[-1])
    outputs, final = x.new_zeros(*x.shape[:2], hidden), x.new_zeros(x.shape[0], hidden)
    for row, length in enumerate(lengths):
        sequence = list(x[row, :length, None])
        for layer in layers:
            ahead = _run_cell(layer[0], sequence)
            behind = [_run_cell(weights, sequence[::-1])[::-1] for weights in layer[1:]]
            sequence = [torch.cat(step, dim=-1) for step in zip(ahead, *behind, strict=True)]
        if length:
            outputs[row, :length] = torch.cat(sequence)
            final[row] = torch.cat([ahead[-1], *(direction[0] for direction in behind)], dim=-1)[0]
    return outputs, final


def _run_cell(weights: CellWeights, sequence: Sequence[Tensor]) -> list[Tensor]:
    """The outputs at each step from a state of zeros; a step is [1, input]."""
    zeros = weights[0].weight_recurrent.new_zeros(1, weights[0].weight_recurrent.shape[0])
    outputs = []
    if isinstance(weights, LSTMWeights):
        state = LSTMState(zeros, zeros)
        for x in sequence:
            state = lstm_step(x, state, weights)
            outputs.append(state.h)
        return outputs
    h = zeros
    for x in sequence:
        h = rnn_step(x, h, weights) if isinstance(weights, RNNWeights) else gru_step(x, h, weights)
        outputs.append(h)
    return outputs
