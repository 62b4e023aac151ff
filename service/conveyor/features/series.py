"""Series to network inputs, scaled by what was seen so far, and outputs back to the caller's units.

Mean and deviation are those of exponentially forgotten weights: an observation h steps old weighs
0.5 ** (h / half_life), and the weights are normalised, so that early estimates are not drawn to zero. They are kept
by West's update (D. H. D. West, "Updating mean and variance estimates: an improved method", CACM 22(9), 1979, here
with decaying weights), which subtracts before it squares: a large offset costs no digits. All of it is sequential
float64 arithmetic, so a series may be cut anywhere and gives the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
import numpy.typing as npt

from conveyor.errors import InvalidArgument
from conveyor.features.time import calendar_waves
from conveyor.spec import SeriesSpec

__all__ = ["MAX_MAGNITUDE", "EncodedSeries", "SeriesEncoder", "SeriesState", "run_scale", "scales"]

# Squares of larger values, summed and scaled back, would leave float64.
MAX_MAGNITUDE: Final = 1e100

# A deviation this small beside the mean is rounding, not movement.
_STILL: Final = 1e-12
_SCALE_OF_STILL: Final = 1e-3

_Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class SeriesState:
    """All that the encoding of later steps depends on, after `steps` steps.

    mean, variance, weight: float64 [features]; of a feature not seen yet all are 0.
    """

    steps: int
    mean: _Array
    variance: _Array
    weight: _Array


@dataclass(frozen=True, slots=True, eq=False)
class EncodedSeries:
    """A series, or a piece of one, as the network takes it.

    inputs: float32 [steps, width]: the features' standardised values (0 where missing), their presence (0 or 1), sine
        and cosine of each calendar item, and 1 if the calendar is known (all of the calendar 0 if not).
    loc, scale: float64 [steps, targets]: in force at each step, that step's observation included; scale is positive.
    """

    inputs: npt.NDArray[np.float32]
    loc: _Array
    scale: _Array


class SeriesEncoder:
    """Encodes the series of one package. Holds no state of any series; any thread may call it.

    decay: what a step leaves of the weights of those before it.
    """

    def __init__(self, spec: SeriesSpec) -> None:
        self._spec = spec
        self.decay = 0.5 ** (1.0 / spec.half_life_steps)
        self._targets = [spec.features.index(name) for name in spec.targets]

    def initial_state(self) -> SeriesState:
        """The state before the first step."""
        zeros = np.zeros(len(self._spec.features))
        return SeriesState(0, zeros, zeros, zeros)

    def encode(self, values: _Array, start: datetime | None) -> EncodedSeries:
        """Encodes a whole series; as `advance` from the initial state."""
        return self.advance(self.initial_state(), values, start)[0]

    def advance(self, state: SeriesState, values: _Array, start: datetime | None) -> tuple[EncodedSeries, SeriesState]:
        """Encodes the steps that follow a state, and gives the state after them; `state` itself stays as it is.

        No step depends on a later one.

        Args:
            values: float64 [steps, features], NaN where missing.
            start: Time of step 0 of the whole series, not of this piece; None if unknown. Without offset: UTC.

        Raises:
            InvalidArgument: A value is infinite or beyond `MAX_MAGNITUDE`, or a time cannot be held.
        """
        num_features, num_steps = len(self._spec.features), len(values)
        if values.shape != (num_steps, num_features):
            raise InvalidArgument(f"values must have {num_features} numbers a step, got shape {values.shape}")
        if (np.abs(values) > MAX_MAGNITUDE).any():
            raise InvalidArgument(f"values must be finite and within {MAX_MAGNITUDE:g} of zero")
        means, deviations = np.empty_like(values), np.empty_like(values)
        last = [
            run_scale(
                self.decay, column, float(mean), float(variance), float(weight), means[:, index], deviations[:, index]
            )
            for index, (column, mean, variance, weight) in enumerate(
                zip(values.T.tolist(), state.mean, state.variance, state.weight, strict=True)
            )
        ]
        scales_at = scales(means, deviations)
        present = ~np.isnan(values)
        inputs = np.zeros((num_steps, self._spec.width), np.float32)
        inputs[:, :num_features] = np.where(present, (values - means) / scales_at, 0.0)
        inputs[:, num_features : 2 * num_features] = present
        if self._spec.calendar and start is not None:
            inputs[:, 2 * num_features : -1] = calendar_waves(
                start, self._spec.frequency, state.steps, num_steps, self._spec.calendar
            )
            inputs[:, -1] = 1.0
        mean, variance, weight = np.array(last).T
        after = SeriesState(state.steps + num_steps, mean, variance, weight)
        return EncodedSeries(inputs, means[:, self._targets], scales_at[:, self._targets]), after

    def standardise(self, values: _Array, loc: _Array, scale: _Array) -> _Array:
        """`(values - loc) / scale`; float64, shapes as broadcast."""
        return np.asarray((values - loc) / scale, np.float64)

    def restore(self, outputs: npt.NDArray[np.floating], loc: _Array, scale: _Array) -> _Array:
        """Gives standardised outputs in the caller's units, the inverse of `standardise` up to float64 rounding.

        Args:
            outputs: [..., horizon, targets, k].
            loc, scale: float64 [..., targets], of the step forecast from.
        """
        restored = outputs.astype(np.float64) * scale[..., None, :, None] + loc[..., None, :, None]
        return np.asarray(restored, np.float64)


def run_scale(
    decay: float,
    column: Sequence[float],
    mean: float,
    variance: float,
    weight: float,
    means: _Array,
    deviations: _Array,
) -> tuple[float, float, float]:
    """Runs one feature; writes mean and deviation at each step into `means` and `deviations`, float64 [steps].

    Plain floats in a plain loop: numpy has no recurrence, and reassociating the sums would change bits.

    Returns:
        Mean, variance and weight after the last step.
    """
    sqrt = math.sqrt
    mean_at: list[float] = []
    deviation_at: list[float] = []
    deviation = sqrt(variance)
    for value in column:
        weight *= decay
        if value == value:  # not NaN
            old_weight = weight
            weight += 1.0
            gap = value - mean
            step = gap / weight
            mean += step
            variance = old_weight / weight * (variance + gap * step)
            deviation = sqrt(variance)
        mean_at.append(mean)
        deviation_at.append(deviation)
    means[:] = mean_at
    deviations[:] = deviation_at
    return mean, variance, weight


def scales(means: _Array, deviations: _Array) -> _Array:
    """The deviation, or where nothing has moved yet a thousandth of the mean, or 1 where that is 0 too."""
    size = np.abs(means)
    still = np.maximum(deviations, _SCALE_OF_STILL * size)
    return np.where(deviations > _STILL * size, deviations, np.where(still > 0.0, still, 1.0))
