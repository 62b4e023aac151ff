"""Durations in a histogram of bounded size and error."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]

__all__ = ["MAX_S", "Latencies"]

MAX_S = 3600.0
_SIGNIFICANT_DIGITS = 3
_US_PER_S = 1e6
_US_PER_MS = 1e3


class Latencies:
    """Durations from a microsecond to an hour; a quantile is off by a thousandth of its value at most.

    The histogram is Tene's HdrHistogram, whose encoded form other tools read. Longer durations count as an hour.
    """

    def __init__(self) -> None:
        self._histogram: Any = HdrHistogram(1, int(MAX_S * _US_PER_S), _SIGNIFICANT_DIGITS)

    @classmethod
    def decode(cls, encoded: str) -> Latencies:
        """The histogram that `encode` gave the text of."""
        latencies = cls()
        latencies._histogram = HdrHistogram.decode(encoded.encode())
        return latencies

    def encode(self) -> str:
        """The counts in HdrHistogram's V2 format, compressed, in base 64; values are microseconds."""
        encoded: bytes = self._histogram.encode()
        return encoded.decode()

    def record(self, duration_s: float) -> None:
        """Counts one duration."""
        self._histogram.record_value(round(min(max(duration_s, 0.0), MAX_S) * _US_PER_S))

    @property
    def count(self) -> int:
        """How many durations were recorded."""
        return int(self._histogram.get_total_count())

    @property
    def mean_ms(self) -> float:
        """Milliseconds; 0 without any."""
        return float(self._histogram.get_mean_value()) / _US_PER_MS if self.count else 0.0

    @property
    def max_ms(self) -> float:
        """Milliseconds; 0 without any."""
        return float(self._histogram.get_max_value()) / _US_PER_MS

    def quantile_ms(self, percent: float) -> float:
        """The smallest duration that at least `percent` of all do not exceed, in milliseconds; 0 without any."""
        if not self.count:
            return 0.0
        # HdrHistogram takes the nearest rank instead, which falls short of the percentile half of the time. Rounded,
        # because 99.9 % of 1000 is a little more than 999 in binary.
        rank = math.ceil(round(percent / 100 * self.count, 6))
        return float(self._histogram.get_value_at_percentile(100 * rank / self.count)) / _US_PER_MS

    def steps(self) -> Iterator[tuple[int, float]]:
        """Gives the quantile function: how many durations are below each one that occurs, and it, in milliseconds."""
        below = 0
        for step in self._histogram.get_recorded_iterator():
            yield below, step.value_iterated_to / _US_PER_MS
            below = int(step.total_count_to_this_value)
