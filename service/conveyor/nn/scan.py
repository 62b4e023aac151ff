"""A long row as a scan that can be stopped after any step and go on later, beside any other rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from conveyor.nn.models import TaskModel
from conveyor.nn.recurrent import State

__all__ = ["RowScan", "advance", "read_out"]


class _Direction:
    """One direction of one layer on its way through a row."""

    def __init__(self, module: nn.Module, *, backwards: bool) -> None:
        self.module = module
        self.backwards = backwards
        self.position = 0
        self.state: State | None = None


class RowScan:
    """One row on its way through the layers of a network; both directions of a layer go on in any order.

    inputs: int32 or float32 [steps, columns or width] on the network's device, one step at least.
    """

    def __init__(self, model: TaskModel, inputs: Tensor) -> None:
        self._model = model
        self._inputs = inputs
        self._hidden = model.recurrent.spec.hidden
        self._directions = [
            _Direction(module, backwards=name == "backwards")
            for layer in model.recurrent.layers
            for name, module in cast(nn.ModuleDict, layer).items()
        ]
        self._per_layer = 2 if model.recurrent.spec.bidirectional else 1
        self._num_layers = len(self._directions) // self._per_layer
        self._layer = 0
        self._layer_input: Tensor | None = None
        self._outputs = self._new_outputs()

    @property
    def num_phases(self) -> int:
        """Directions × layers."""
        return len(self._directions)

    @property
    def phases(self) -> list[int]:
        """The directions of the present layer that are not through; none when the row is done."""
        first = self._layer * self._per_layer
        return [p for p in range(first, min(first + self._per_layer, self.num_phases)) if self.remaining_steps(p)]

    def remaining_steps(self, phase: int) -> int:
        """Steps still to run in a direction."""
        return len(self._inputs) - self._directions[phase].position

    def module(self, phase: int) -> nn.Module:
        """What runs a direction."""
        return self._directions[phase].module

    def state(self, phase: int) -> State | None:
        """What the steps of a direction so far have left; None before the first."""
        return self._directions[phase].state

    def next(self, phase: int, steps: int) -> Tensor:
        """Inputs of the next steps: float32 [at most `steps`, width], the backward direction's from the end."""
        direction = self._directions[phase]
        first, last = direction.position, min(direction.position + steps, len(self._inputs))
        if direction.backwards:
            first, last = len(self._inputs) - last, len(self._inputs) - first
        if self._layer_input is None:
            piece = self._model.embed(self._inputs[None, first:last])[0]
        else:
            piece = self._layer_input[first:last]
        return piece.flip(0) if direction.backwards else piece

    def take(self, phase: int, outputs: Tensor, state: State) -> None:
        """Keeps what a call gave: [steps taken, hidden] and the state after them. All of it or, if memory runs out,
        nothing: the row can go on from where it stood."""
        direction = self._directions[phase]
        total = len(self._inputs)
        first, last = direction.position, direction.position + len(outputs)
        ends_layer = last == total and self.phases == [phase]
        # All that needs memory comes before anything that is kept.
        next_outputs = self._new_outputs() if ends_layer and self._layer < self._num_layers - 1 else None
        if direction.backwards:
            self._outputs[total - last : total - first, self._hidden :] = outputs.flip(0)
        else:
            self._outputs[first:last, : self._hidden] = outputs
        direction.position, direction.state = last, state
        if next_outputs is not None:
            self._layer += 1
            self._layer_input, self._outputs = self._outputs, next_outputs

    def outputs(self) -> Tensor:
        """What the last layer put out, once the row is done: [steps, output_size]."""
        return self._outputs

    def _new_outputs(self) -> Tensor:
        steps, width = len(self._inputs), self._model.recurrent.output_size
        return torch.empty(steps, width, dtype=torch.float32, device=self._inputs.device)


def advance(model: TaskModel, scans: Sequence[RowScan], phase: int, steps: int, rows: int) -> None:
    """Runs the next steps of one direction of some rows in one call.

    If it raises, each row stands where it stood, or has all that the call gave it: any of them can go on.

    Args:
        scans: All can go on with the phase; each does for `steps` steps or to the end of the row.
        rows: Rows to compute, at least as many as there are scans; the rest is filler. Layers that are `ragged` need
            none, and no more steps than the longest has left.
    """
    pieces = [scan.next(phase, steps) for scan in scans]
    if model.recurrent.ragged:
        rows, steps = len(scans), max(map(len, pieces))
    x = torch.stack([F.pad(piece, (0, 0, 0, steps - len(piece))) for piece in pieces])
    x = F.pad(x, (0, 0, 0, 0, 0, rows - len(scans)))
    states = _join([scan.state(phase) for scan in scans], x, model, rows)
    outputs, state = model.recurrent.call(scans[0].module(phase), x, states)
    for index, (scan, piece) in enumerate(zip(scans, pieces, strict=True)):
        scan.take(phase, outputs[index, : len(piece)], _part(state, index))


def read_out(model: TaskModel, scan: RowScan) -> dict[str, Tensor]:
    """The result of a row that is done, as `predict` gives it for a batch of this row alone."""
    outputs = scan.outputs()[None]
    lengths = torch.tensor([outputs.shape[1]], device=outputs.device)
    return model.read_out(outputs, lengths)


def _join(states: Sequence[State | None], x: Tensor, model: TaskModel, rows: int) -> State:
    """The states of rows side by side, zeros for those that begin and for filler."""
    hidden = model.recurrent.spec.hidden
    # Of float32, unlike x where layer one takes ids.
    h, c = (torch.zeros(1, rows, hidden, device=x.device) for _ in range(2))
    for index, state in enumerate(states):
        if isinstance(state, Tensor):
            h[:, index] = state[:, 0]
        elif state is not None:
            h[:, index], c[:, index] = state[0][:, 0], state[1][:, 0]
    return (h, c) if model.recurrent.spec.cell == "lstm" else h


def _part(state: State, index: int) -> State:
    if isinstance(state, Tensor):
        return state[:, index : index + 1]
    return state[0][:, index : index + 1], state[1][:, index : index + 1]
