"""Stacked, one- or two-directional recurrent layers over padded batches of rows of different lengths."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from conveyor.spec import RecurrentSpec

__all__ = ["CHUNK_STEPS", "FEWEST_ROWS", "RaggedLayer", "RecurrentStack", "Stair", "State"]

# Steps given to the library at once. cuDNN refuses more than 65 535; carried state makes the cut invisible.
CHUNK_STEPS = 4096

# What a cell carries from step to step: h, or (h, c) of an LSTM, each float32 [1, rows, hidden].
State = Tensor | tuple[Tensor, Tensor]

_CELLS: dict[str, type[nn.RNN | nn.GRU | nn.LSTM]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}

# Rows given to the library at least, filled up with zeros: with fewer, the CPU's matrix product takes another kernel
# that rounds differently, and a row's answer would depend on its neighbours. oneDNN's LSTM differs for one row only.
FEWEST_ROWS = {"rnn": 4, "gru": 4, "lstm": 2}


class Stair(Protocol):
    """One call to the library: the first `rows` rows of a batch for the next `steps` steps."""

    @property
    def rows(self) -> int:
        """How many rows, from the first."""

    @property
    def steps(self) -> int:
        """How many steps, from where the last stair ended."""


class RaggedLayer(nn.Module, ABC):
    """A kernel for one direction of one layer that computes each row to its own end only."""

    @abstractmethod
    def run(self, x: Tensor, lengths: Tensor, outputs: Tensor, *, backwards: bool) -> None:
        """Runs whole rows in any order.

        Args:
            x: [rows, steps, width]; what lies past a row's length is not read.
            lengths: int64 [rows], at most `steps` each; zero is valid.
            outputs: float32 [rows, steps, hidden], a part of the last dimension of a contiguous tensor; is written,
                with zeros past a row's length. Or [rows, hidden], to take the highest of each output over the row's
                own steps alone, zeros of a row without steps.
            backwards: Whether rows are read and written from their own ends.
        """


class RecurrentStack(nn.Module):
    """Layers of recurrent cells, each direction of each layer a single-layer module of its own.

    A backward direction reads every row from its own last step, so that padding never reaches a valid step. What a
    layer puts out for both directions is concatenated, forward first, and is the next layer's input.
    Weights are named `layers.<layer>.forwards.*` and `layers.<layer>.backwards.*`, as in torch's modules.

    Args:
        input_size: Width of a step.
        spec: Cell, units, layers, directions.
        dropout: Probability with which an output between two layers is dropped in training.
    """

    def __init__(self, input_size: int, spec: RecurrentSpec, dropout: float = 0.0) -> None:
        super().__init__()
        self.spec = spec
        self.output_size = spec.hidden * (2 if spec.bidirectional else 1)
        self.dropout = nn.Dropout(dropout)
        self.fewest_rows = FEWEST_ROWS[spec.cell]
        # Whether rows are computed to their own ends only, and in whatever number there are.
        self.ragged = False
        directions = ("forwards", "backwards") if spec.bidirectional else ("forwards",)
        widths = [input_size] + [self.output_size] * (spec.layers - 1)
        self.layers = nn.ModuleList(
            nn.ModuleDict({name: _CELLS[spec.cell](width, spec.hidden, batch_first=True) for name in directions})
            for width in widths
        )
        self.initialise()

    def initialise(self) -> None:
        """Draws new weights: orthogonal recurrent ones (Saxe et al. 2014), Glorot's for the input, biases zero but one
        for an LSTM's forget gate, so that it starts by remembering (Gers et al. 2000; Jozefowicz et al. 2015)."""
        for name, parameter in self.named_parameters():
            blocks = torch.chunk(parameter.detach(), parameter.shape[0] // self.spec.hidden)  # one per gate
            if "weight_hh" in name:
                for block in blocks:
                    nn.init.orthogonal_(block)
            elif "weight_ih" in name:
                for block in blocks:
                    nn.init.xavier_uniform_(block)
            else:
                nn.init.zeros_(parameter)
                if self.spec.cell == "lstm" and "bias_ih" in name:
                    nn.init.ones_(blocks[1])  # torch's order of gates: input, forget, cell candidate, output

    def use(self, make_kernel: Callable[[nn.RNNBase], nn.Module], fewest_rows: int) -> None:
        """Computes every direction of every layer by something else from now on; for inference only.

        Args:
            make_kernel: Makes a kernel from a direction's module. A kernel takes what `call` takes, and gives what it
                gives, to the accuracy of its own arithmetic. If one is a `RaggedLayer`, all are.
            fewest_rows: Rows a kernel is given at least, so that a row comes out alike in any company.
        """
        for layer in self.layers:
            assert isinstance(layer, nn.ModuleDict)
            for name, module in layer.items():
                assert isinstance(module, nn.RNNBase)
                layer[name] = make_kernel(module)
        self.fewest_rows = fewest_rows
        self.ragged = all(isinstance(m, RaggedLayer) for layer in self.layers for m in layer.children())

    def forward(self, x: Tensor, lengths: Tensor, stairs: Sequence[Stair] | None = None) -> tuple[Tensor, Tensor]:
        """What the last layer puts out, and the states in which it ends: `outputs` and `final`."""
        outputs = self.outputs(x, lengths, stairs)
        return outputs, self.final(outputs, lengths)

    def outputs(self, x: Tensor, lengths: Tensor, stairs: Sequence[Stair] | None = None) -> Tensor:
        """Runs all layers.

        Args:
            x: float32 [rows, steps, input_size], padded after each row's length with anything.
            lengths: int64 [rows], at most `steps` each; zero is valid.
            stairs: The calls to make in each layer and direction: rows that never grow, of which every row that has
                not ended is one, and steps that sum to `steps`. Rows must stand in descending order of length. By
                default all rows together. The outcome does not depend on it, the work does, unless it is `ragged`.

        Returns:
            [rows, steps, output_size], meaningless past a row's length.
        """
        for number, layer in enumerate(self.layers):
            assert isinstance(layer, nn.ModuleDict)
            if number:
                x = self.dropout(x)
            if self.ragged:
                x = self._run_ragged(layer, x, lengths, x.shape[:2])
            else:
                x = self._run_layer(layer, x, lengths, _calls(x, stairs))
        return x

    def highest(self, x: Tensor, lengths: Tensor) -> Tensor:
        """As `outputs`, but only the highest of each output over a row's own steps, which a stack that is `ragged`
        finds on the way: [rows, output_size], zeros for a row without steps."""
        *lower, last = self.layers
        for layer in lower:
            x = self._run_ragged(layer, x, lengths, x.shape[:2])
        return self._run_ragged(last, x, lengths, x.shape[:1])

    def _run_ragged(self, layer: nn.Module, x: Tensor, lengths: Tensor, shape: Sequence[int]) -> Tensor:
        assert isinstance(layer, nn.ModuleDict)
        outputs = torch.empty(*shape, self.output_size, device=x.device)
        for place, (name, module) in enumerate(layer.items()):
            assert isinstance(module, RaggedLayer)
            part = outputs[..., place * self.spec.hidden : (place + 1) * self.spec.hidden]
            module.run(x, lengths, part, backwards=name == "backwards")
        return outputs

    def _run_layer(self, layer: nn.ModuleDict, x: Tensor, lengths: Tensor, calls: Sequence[tuple[int, int]]) -> Tensor:
        ahead = self._run_direction(layer["forwards"], x, calls)
        if not self.spec.bidirectional:
            return ahead
        positions = _reversed_positions(x.shape[1], lengths)
        behind = self._run_direction(layer["backwards"], _take_steps(x, positions), calls)
        return torch.cat([ahead, _take_steps(behind, positions)], dim=-1)

    def _run_direction(self, module: nn.Module, x: Tensor, calls: Sequence[tuple[int, int]]) -> Tensor:
        """Runs one direction call by call, each on the first rows only; rows that have ended keep zeros."""
        if len(calls) == 1:
            return self.call(module, x, None)[0]
        found = x.new_zeros(*x.shape[:2], self.spec.hidden)
        state: State | None = None
        first = 0
        for rows, steps in calls:
            if state is not None:
                state = _first_rows(state, rows)
            outputs, state = self.call(module, x[:rows, first : first + steps], state)
            found[:rows, first : first + steps] = outputs
            first += steps
        return found

    def call(self, module: nn.Module, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Runs one direction of one layer over some steps.

        Args:
            module: One of `layers[i].values()`.
            x: float32 [rows, steps, width].
            state: What the steps before left, zeros if None.

        Returns:
            The outputs [rows, steps, hidden], and the state after the last step.
        """
        rows = x.shape[0]
        filler = max(0, self.fewest_rows - rows)
        if filler:
            x = F.pad(x, (0, 0, 0, 0, 0, filler))
            if state is not None:
                state = _map_state(state, lambda part: F.pad(part, (0, 0, 0, filler)))
        outputs, after = module(x, state)
        return outputs[:rows], _first_rows(after, rows)

    def final(self, outputs: Tensor, lengths: Tensor) -> Tensor:
        """The last layer's output at each row's last step, and for the backward direction at its first, where that
        direction ends: [rows, output_size], zeros for a row without steps. A cell's output is its hidden state."""
        rows, steps, _ = outputs.shape
        if steps == 0:
            return outputs.new_zeros(rows, self.output_size)
        hidden = self.spec.hidden
        ends = outputs[torch.arange(rows, device=outputs.device), (lengths - 1).clamp(min=0), :hidden]
        final = torch.cat([ends, outputs[:, 0, hidden:]], dim=-1)
        return torch.where(lengths[:, None] > 0, final, 0.0)


def _calls(x: Tensor, stairs: Sequence[Stair] | None) -> list[tuple[int, int]]:
    """(rows, steps) of each call, none longer than the library takes."""
    rows, steps, _ = x.shape
    whole = [(stair.rows, stair.steps) for stair in stairs] if stairs is not None else [(rows, steps)]
    return [(rows, min(CHUNK_STEPS, steps - first)) for rows, steps in whole for first in range(0, steps, CHUNK_STEPS)]


def _map_state(state: State, change: Callable[[Tensor], Tensor]) -> State:
    return change(state) if isinstance(state, Tensor) else (change(state[0]), change(state[1]))


def _first_rows(state: State, rows: int) -> State:
    return _map_state(state, lambda part: part[:, :rows].contiguous())


def _reversed_positions(steps: int, lengths: Tensor) -> Tensor:
    """Where the steps of reversed rows lie among those of all rows: int64 [rows × steps]. Padding stays in place."""
    position = torch.arange(steps, device=lengths.device)[None, :]
    ends = lengths[:, None]
    first = torch.arange(len(lengths), device=lengths.device)[:, None] * steps
    return (first + torch.where(position < ends, ends - 1 - position, position)).flatten()


def _take_steps(x: Tensor, positions: Tensor) -> Tensor:
    """The steps at some positions among all of x, in its shape. Whole steps are copied, which is ten times as fast as a
    gather of their elements."""
    return x.flatten(0, 1).index_select(0, positions).view(x.shape)
