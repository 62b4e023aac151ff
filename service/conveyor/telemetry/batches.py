"""What executions cost, counted when somebody looks: an engine has better things to do between two of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from conveyor.telemetry.buckets import Buckets, bounds_of, help_of

__all__ = ["BATCH_METRICS", "BatchCounts"]

_QUEUE, _COMPUTE, _SIZE, _STEPS = (
    "conveyor_queue_duration_seconds",
    "conveyor_compute_duration_seconds",
    "conveyor_batch_size",
    "conveyor_batch_steps_total",
)

# The metrics that are counted here.
BATCH_METRICS = frozenset({_QUEUE, _COMPUTE, _SIZE, _STEPS})

# Executions that wait to be counted.
_MOST_PENDING = 1000


@dataclass(frozen=True, slots=True)
class _Batch:
    """An execution. queue_s: float64 [rows], seconds each row waited."""

    model: str
    queue_s: npt.NDArray[np.float64]
    compute_s: float
    rows: int
    useful_steps: int
    padding_steps: int


class _Model:
    """What was counted of a model."""

    def __init__(self) -> None:
        self.histograms = {name: Buckets(bounds_of(name)) for name in (_QUEUE, _COMPUTE, _SIZE)}
        self.steps = {"useful": 0, "padding": 0}

    def count(self, batches: Sequence[_Batch]) -> None:
        """Counts executions."""
        self.histograms[_QUEUE].observe(np.concatenate([batch.queue_s for batch in batches]))
        self.histograms[_COMPUTE].observe(np.array([batch.compute_s for batch in batches]))
        self.histograms[_SIZE].observe(np.array([batch.rows for batch in batches], dtype=np.float64))
        self.steps["useful"] += sum(batch.useful_steps for batch in batches)
        self.steps["padding"] += sum(batch.padding_steps for batch in batches)


class BatchCounts(Collector):
    """The metrics of `BATCH_METRICS`. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: list[_Batch] = []
        self._models: dict[str, _Model] = {}

    def add(
        self,
        model: str,
        queue_s: npt.NDArray[np.float64],
        compute_s: float,
        rows: int,
        useful_steps: int,
        padding_steps: int,
    ) -> None:
        """Counts an execution. `queue_s` must not change any more."""
        with self._lock:
            self._pending.append(_Batch(model, queue_s, compute_s, rows, useful_steps, padding_steps))
            if len(self._pending) >= _MOST_PENDING:
                self._count()

    def collect(self) -> Iterator[Metric]:
        """What was counted, for a page or another process."""
        with self._lock:
            self._count()
            found = [self._family(name) for name in (_QUEUE, _COMPUTE, _SIZE)]
            steps = CounterMetricFamily(_STEPS, help_of(_STEPS), labels=("model", "kind"))
            for model, counted in self._models.items():
                for kind, value in counted.steps.items():
                    steps.add_metric((model, kind), value)
        yield from found
        yield steps

    def _family(self, name: str) -> HistogramMetricFamily:
        family = HistogramMetricFamily(name, help_of(name), labels=("model",))
        for model, counted in self._models.items():
            buckets = counted.histograms[name]
            family.add_metric((model,), buckets.cumulative(), buckets.sum)
        return family

    def _count(self) -> None:
        pending, self._pending = self._pending, []
        by_model: dict[str, list[_Batch]] = {}
        for batch in pending:
            by_model.setdefault(batch.model, []).append(batch)
        for model, batches in by_model.items():
            self._models.setdefault(model, _Model()).count(batches)
