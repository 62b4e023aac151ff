"""Requests that ended, counted when somebody looks: the event loop has better things to do between two of them."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from conveyor.errors import Code
from conveyor.telemetry.buckets import Buckets, bounds_of, help_of

__all__ = ["REQUEST_METRICS", "RequestCounts"]

_REQUESTS, _DURATION = "conveyor_requests_total", "conveyor_request_duration_seconds"

# The metrics that are counted here.
REQUEST_METRICS = frozenset({_REQUESTS, _DURATION})

# Requests that wait to be counted.
_MOST_PENDING = 256

# Task, model, version and protocol.
Series = tuple[str, str, str, str]


class RequestCounts(Collector):
    """The metrics of `REQUEST_METRICS`. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: defaultdict[tuple[Series, Code], list[float]] = defaultdict(list)
        self._num_pending = 0
        self._ended: defaultdict[tuple[Series, Code], int] = defaultdict(int)
        self._durations: dict[Series, Buckets] = {}

    def add(self, series: Series, code: Code, duration_s: float) -> None:
        """Counts a request."""
        with self._lock:
            self._pending[series, code].append(duration_s)
            self._num_pending += 1
            if self._num_pending >= _MOST_PENDING:
                self._count()

    def collect(self) -> Iterator[Metric]:
        """What was counted, for a page or another process."""
        labels = ("task", "model", "version", "protocol")
        ended = CounterMetricFamily(_REQUESTS, help_of(_REQUESTS), labels=(*labels, "code"))
        durations = HistogramMetricFamily(_DURATION, help_of(_DURATION), labels=labels)
        with self._lock:
            self._count()
            for (series, code), count in self._ended.items():
                ended.add_metric((*series, code.value), count)
            for series, buckets in self._durations.items():
                durations.add_metric(series, buckets.cumulative(), buckets.sum)
        yield ended
        yield durations

    def _count(self) -> None:
        pending, self._pending, self._num_pending = self._pending, defaultdict(list), 0
        for (series, code), durations in pending.items():
            self._ended[series, code] += len(durations)
            if series not in self._durations:
                self._durations[series] = Buckets(bounds_of(_DURATION))
            self._durations[series].observe(np.array(durations))
