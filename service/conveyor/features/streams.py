"""Many series at once, each a few steps on from where it stood: the encoding of streaming sessions.

The same arithmetic as `SeriesEncoder.advance`, in the same order for each series, so the bits are the same; only that
a step of all series is one operation.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from conveyor.errors import InvalidArgument
from conveyor.features.series import SeriesEncoder, run_scale, scales
from conveyor.features.time import calendar_waves, check_span, fixed_step_us, parse_start, waves_at
from conveyor.spec import SeriesSpec

__all__ = ["NO_START", "EncodedSteps", "Scaling", "StreamEncoder", "format_start", "read_start"]

# Of a series whose start is unknown, in place of microseconds.
NO_START: Final = np.iinfo(np.int64).min

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LAST_US: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND

# Up to so many numbers a step, plain floats are faster than numpy's calls.
_FEW: Final = 16

_Array = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]


def read_start(start: str) -> tuple[int, int]:
    """ISO-8601 text as microseconds since 1970 in UTC, and its offset in microseconds.

    Raises:
        InvalidArgument: The text is not ISO-8601.
    """
    time = parse_start(start)
    return (time - _EPOCH) // _MICROSECOND, (time.utcoffset() or timedelta()) // _MICROSECOND


@lru_cache(maxsize=65_536)
def format_start(start_us: int, offset_us: int) -> str:
    """What `read_start` reads as these numbers."""
    return _time(start_us, offset_us).isoformat()


@dataclass(frozen=True, slots=True, eq=False)
class Scaling:
    """What the encoding of later steps depends on, beside the count of steps: that of `SeriesState`, for many series.

    mean, variance, weight: float64 [series, features].
    """

    mean: _Array
    variance: _Array
    weight: _Array

    def rows(self, chosen: npt.NDArray[np.bool_]) -> Scaling:
        """That of some of the series. chosen: bool [series]."""
        return Scaling(self.mean[chosen], self.variance[chosen], self.weight[chosen])


@dataclass(frozen=True, slots=True, eq=False)
class EncodedSteps:
    """inputs: float32 [series, steps, width]; scaling: after the steps."""

    inputs: npt.NDArray[np.float32]
    scaling: Scaling


class StreamEncoder:
    """Encodes the sessions of one package. Holds no state of any; any thread may call it."""

    def __init__(self, spec: SeriesSpec) -> None:
        self._spec = spec
        self._decay = SeriesEncoder(spec).decay
        self._step_us = fixed_step_us(spec.frequency)
        self._targets = [spec.features.index(name) for name in spec.targets]

    def advance(self, scaling: Scaling, steps: _Ints, values: _Array, starts_us: _Ints) -> EncodedSteps:
        """Encodes the next steps of each series; `scaling` itself stays as it is.

        Args:
            steps: int64 [series], steps of each series before these.
            values: float64 [series, steps, features], NaN where missing, nothing beyond `MAX_MAGNITUDE`.
            starts_us: int64 [series], time of step 0, or `NO_START`. `reaches_too_far` must hold for none.
        """
        count, num_steps, num_features = values.shape
        means, deviations, after = self._scale(scaling, values)
        scales_at = scales(means, deviations)
        present = ~np.isnan(values)
        inputs = np.zeros((count, num_steps, self._spec.width), np.float32)
        inputs[..., :num_features] = np.where(present, (values - means) / scales_at, 0.0)
        inputs[..., num_features : 2 * num_features] = present
        if self._spec.calendar and num_steps:
            known = starts_us != NO_START
            if known.all():
                self._write_calendar(inputs, steps, starts_us)
            elif known.any():
                told = inputs[known]
                self._write_calendar(told, steps[known], starts_us[known])
                inputs[known] = told
        return EncodedSteps(inputs, after)

    def units(self, scaling: Scaling) -> tuple[_Array, _Array]:
        """`loc` and `scale` of each series' targets: float64 [series, targets], as in `EncodedSeries`."""
        means = scaling.mean[:, self._targets]
        return means, scales(means, np.sqrt(scaling.variance[:, self._targets]))

    def knows_targets(self, scaling: Scaling) -> npt.NDArray[np.bool_]:
        """Whether every target was observed once: bool [series]."""
        return np.asarray((scaling.weight[:, self._targets] > 0.0).all(axis=1), np.bool_)

    def knows_targets_after(self, weight: _Array, values: _Array) -> bool:
        """The same of one series after more steps. weight: float64 [features]; values: float64 [steps, features]."""
        return bool(((weight > 0.0) | (~np.isnan(values)).any(axis=0))[self._targets].all())

    def reaches_too_far(self, starts_us: _Ints, offsets_us: _Ints, last_steps: _Ints) -> npt.NDArray[np.bool_]:
        """Whether the time of a step can't be written any more: bool [series]."""
        if self._step_us is not None:
            known = starts_us != NO_START
            room = (_LAST_US - np.maximum(offsets_us, 0) - np.where(known, starts_us, 0)) // self._step_us
            return np.asarray(known & (last_steps > room), np.bool_)
        return np.array(
            [
                start_us != NO_START and not self._can_write(start_us, offset_us, last)
                for start_us, offset_us, last in zip(
                    starts_us.tolist(), offsets_us.tolist(), last_steps.tolist(), strict=True
                )
            ],
            dtype=np.bool_,
        )

    def _can_write(self, start_us: int, offset_us: int, last_step: int) -> bool:
        try:
            check_span(_time(start_us, offset_us), self._spec.frequency, last_step, field="start")
        except InvalidArgument:
            return False
        return True

    def _scale(self, scaling: Scaling, values: _Array) -> tuple[_Array, _Array, Scaling]:
        """Means and deviations in force at each step, float64 as `values`, and the scaling after them."""
        count, num_steps, num_features = values.shape
        means, deviations = np.empty_like(values), np.empty_like(values)
        if num_steps > 1 and count * num_features <= _FEW:
            after = Scaling(np.empty_like(scaling.mean), np.empty_like(scaling.mean), np.empty_like(scaling.mean))
            for series in range(count):
                for feature in range(num_features):
                    at = series, feature
                    after.mean[at], after.variance[at], after.weight[at] = run_scale(
                        self._decay,
                        values[series, :, feature].tolist(),
                        float(scaling.mean[at]),
                        float(scaling.variance[at]),
                        float(scaling.weight[at]),
                        means[series, :, feature],
                        deviations[series, :, feature],
                    )
            return means, deviations, after
        mean, variance, weight = scaling.mean, scaling.variance, scaling.weight
        for step in range(num_steps):
            value = values[:, step]
            weight = weight * self._decay
            present = value == value  # not NaN
            grown = weight + 1.0
            gap = value - mean
            move = gap / grown
            variance = np.where(present, weight / grown * (variance + gap * move), variance)
            mean = np.where(present, mean + move, mean)
            weight = np.where(present, grown, weight)
            means[:, step] = mean
            deviations[:, step] = np.sqrt(variance)
        return means, deviations, Scaling(mean, variance, weight)

    def _write_calendar(self, inputs: npt.NDArray[np.float32], steps: _Ints, starts_us: _Ints) -> None:
        """Fills in what a known start tells. inputs: float32 [series, steps, width], written to."""
        spec = self._spec
        num_steps, first = inputs.shape[1], 2 * len(spec.features)
        if self._step_us is not None:
            position = steps[:, None] + np.arange(num_steps)
            times = (starts_us[:, None] + self._step_us * position).view("datetime64[us]")
            if (times[1:] == times[:1]).all():
                # Meters that are read together stand at one time.
                times = times[:1]
            inputs[..., first:-1] = waves_at(times, spec.calendar)
        else:
            for series, (start_us, before) in enumerate(zip(starts_us.tolist(), steps.tolist(), strict=True)):
                start = _time(start_us, 0)
                inputs[series, :, first:-1] = calendar_waves(start, spec.frequency, before, num_steps, spec.calendar)
        inputs[..., -1] = 1.0


def _time(start_us: int, offset_us: int) -> datetime:
    return (_EPOCH + start_us * _MICROSECOND).astimezone(timezone(offset_us * _MICROSECOND))
