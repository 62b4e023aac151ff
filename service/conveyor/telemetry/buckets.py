"""Histograms that take many values at once, which the Prometheus client has no way to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from prometheus_client.utils import floatToGoString

from conveyor.telemetry.catalogue import METRICS, Metric

__all__ = ["Buckets", "bounds_of", "help_of"]


class Buckets:
    """One series of a histogram. bounds: upper ones, ascending, without infinity."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = np.array(bounds)
        self._labels = [*map(floatToGoString, bounds), "+Inf"]
        self._counts = np.zeros(len(self._labels), dtype=np.int64)
        self.sum = 0.0

    def observe(self, values: npt.NDArray[np.float64]) -> None:
        """Counts values. A value on a bound is below it."""
        places = np.searchsorted(self._bounds, values)
        self._counts += np.bincount(places, minlength=len(self._labels))
        self.sum += float(values.sum())

    def cumulative(self) -> list[tuple[str, float]]:
        """The bound of each bucket as text, and how many values there are up to it."""
        return list(zip(self._labels, np.cumsum(self._counts, dtype=np.float64).tolist(), strict=True))


def bounds_of(name: str) -> Sequence[float]:
    """The upper bounds of a metric of the catalogue."""
    return _metric(name).buckets


def help_of(name: str) -> str:
    """What the catalogue says of a metric."""
    return _metric(name).help


def _metric(name: str) -> Metric:
    (found,) = (metric for metric in METRICS if metric.name == name)
    return found
