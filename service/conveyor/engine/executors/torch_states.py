"""The recurrent states of sessions as torch tensors, on the CPU or on a CUDA device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from conveyor.engine.executors.port import StepOutcome
from conveyor.engine.executors.torch_memory import inference
from conveyor.nn.models import SeriesForecaster
from conveyor.nn.recurrent import State
from conveyor.spec import SeriesSpec

__all__ = ["TorchStates"]


class TorchStates:
    """`SessionStates` of a forecaster whose layers are computed by the float32 reference.

    A slab is float32 [parts, slots, hidden]: h of every layer, and c behind each h of an LSTM.
    """

    def __init__(self, network: SeriesForecaster, device: torch.device) -> None:
        self._network = network
        self._device = device
        recurrent = network.recurrent.spec
        self._hidden = recurrent.hidden
        self._parts_of_layer = 2 if recurrent.cell == "lstm" else 1
        self._num_parts = recurrent.layers * self._parts_of_layer
        self._slabs: list[Tensor] = []
        self._slab_slots = 0

    @property
    def series(self) -> SeriesSpec:
        """What the observations of a session are."""
        return self._network.spec.series

    @property
    def forecast_shape(self) -> tuple[int, ...]:
        """Of one forecast."""
        spec = self._network.spec
        return spec.horizon, len(spec.series.targets), 1 + len(spec.quantiles)

    @property
    def width(self) -> int:
        """Numbers of a state."""
        return self._num_parts * self._hidden

    def add_slab(self, slots: int) -> None:
        """Adds slots. On the CPU memory is taken only where a state is written."""
        with inference():
            self._slabs.append(torch.empty(self._num_parts, slots, self._hidden, device=self._device))
        self._slab_slots = self._slabs[0].shape[1]

    def step(
        self, slots: npt.NDArray[np.int32], inputs: npt.NDArray[np.float32], wanted: npt.NDArray[np.bool_]
    ) -> StepOutcome:
        """Advances states and forecasts from them."""
        rows, computed, steps = len(slots), *inputs.shape[:2]
        with inference():
            # Filler goes on from some state too, which is then dropped.
            filled = np.concatenate([slots, slots[:1].repeat(computed - rows)]) if computed > rows else slots
            parts: Sequence[Tensor] = self._gather(filled)
            if steps:
                parts = self._advance(torch.from_numpy(inputs).to(self._device), parts)
            parts = [part[:rows] for part in parts]
            finite = self._finite(parts)
            forecasts = np.empty((0, *self.forecast_shape), dtype=np.float32)
            if wanted.any():
                h = parts[-self._parts_of_layer]
                if not wanted.all():
                    h = h[torch.from_numpy(np.flatnonzero(wanted)).to(self._device)]
                forecasts = self._network.forecast_from(h).cpu().numpy()
                finite[wanted] &= np.isfinite(forecasts.reshape(len(forecasts), -1).sum(axis=1))
            if steps:
                self._scatter(slots, parts, finite)
        return StepOutcome(finite, forecasts if finite.all() else forecasts[finite[wanted]])

    def read(self, slots: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        """Copies of states."""
        with inference():
            found: npt.NDArray[np.float32] = torch.cat(self._gather(slots), dim=1).cpu().numpy()
        return found

    def write(self, slots: npt.NDArray[np.int32], states: npt.NDArray[np.float32]) -> None:
        """Puts states into slots."""
        with inference():
            tensor = torch.from_numpy(np.ascontiguousarray(states)).to(self._device)
            self._scatter(slots, tensor.chunk(self._num_parts, dim=1), np.ones(len(slots), dtype=np.bool_))

    def _advance(self, x: Tensor, parts: Sequence[Tensor]) -> Sequence[Tensor]:
        """Runs all layers. x: float32 [rows, steps, width]; parts, and what is returned: [rows, hidden] each."""
        after: list[Tensor] = []
        stack = self._network.recurrent
        for number, layer in enumerate(stack.layers):
            first = number * self._parts_of_layer
            h = parts[first][None]
            state: State = (h, parts[first + 1][None]) if self._parts_of_layer == 2 else h
            x, state = stack.call(cast(nn.ModuleDict, layer)["forwards"], x, state)
            after += [part[0] for part in state] if isinstance(state, tuple) else [state[0]]
        return after

    def _finite(self, parts: Sequence[Tensor]) -> npt.NDArray[np.bool_]:
        """Which rows are free of NaN and infinity: bool [rows]."""
        # A sum is finite if all of it is: states are far too small to add up to infinity.
        if math.isfinite(sum(float(part.sum()) for part in parts)):
            return np.ones(len(parts[0]), dtype=np.bool_)
        rows = torch.stack([part.sum(dim=1) for part in parts]).sum(dim=0)
        return np.asarray(np.isfinite(rows.cpu().numpy()), np.bool_)

    def _gather(self, slots: npt.NDArray[np.int32]) -> list[Tensor]:
        """[slots, hidden] of each part."""
        if len(self._slabs) == 1:
            places = self._places(slots)
            return [part.index_select(0, places) for part in self._slabs[0]]
        slabs = slots // self._slab_slots
        found = torch.empty(self._num_parts, len(slots), self._hidden, device=self._device)
        for slab in np.unique(slabs).tolist():
            mine = np.flatnonzero(slabs == slab)
            states = self._slabs[slab].index_select(1, self._places(slots[mine]))
            found.index_copy_(1, torch.from_numpy(mine).to(self._device), states)
        return list(found)

    def _scatter(self, slots: npt.NDArray[np.int32], parts: Sequence[Tensor], chosen: npt.NDArray[np.bool_]) -> None:
        """Puts back the rows that are chosen."""
        if len(self._slabs) == 1 and chosen.all():
            places = self._places(slots)
            for target, part in zip(self._slabs[0], parts, strict=True):
                target.index_copy_(0, places, part)
            return
        slabs = slots // self._slab_slots
        for slab in np.unique(slabs).tolist():
            mine = chosen & (slabs == slab)
            places = self._places(slots[mine])
            rows = None if mine.all() else torch.from_numpy(np.flatnonzero(mine)).to(self._device)
            for target, part in zip(self._slabs[slab], parts, strict=True):
                target.index_copy_(0, places, part if rows is None else part[rows])

    def _places(self, slots: npt.NDArray[np.int32]) -> Tensor:
        """Where slots of one slab stand in it."""
        places = slots if len(self._slabs) == 1 else slots % self._slab_slots
        return torch.from_numpy(places.astype(np.int64)).to(self._device)
