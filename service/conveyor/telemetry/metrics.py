"""The registry of this process: one method per observation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import numpy as np
import numpy.typing as npt
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from conveyor.domain import ModelKey
from conveyor.errors import Code
from conveyor.telemetry.batches import BATCH_METRICS, BatchCounts
from conveyor.telemetry.catalogue import METRICS, Kind
from conveyor.telemetry.merge import Family, snapshot
from conveyor.telemetry.requests import REQUEST_METRICS, RequestCounts

__all__ = ["Metrics", "Scrape"]

# Gives the metrics of the whole server, in the Prometheus text format.
Scrape = Callable[[], Awaitable[bytes]]


class Metrics:
    """What this process observed, in a registry of its own. Every method may be called from any thread.

    The metrics are those of `catalogue.METRICS` and no others; beside them stand the Python client's collectors for
    the process, the platform and the garbage collector.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        # A `_created` series doubles the series of every counter and nothing here reads it. The client knows only a
        # switch for the whole process.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        # What others count, as it was when last taken over.
        self._counted: dict[tuple[str, str, str], int] = {}
        self._requests = RequestCounts()
        self._registry.register(self._requests)
        self._batches = BatchCounts()
        self._registry.register(self._batches)
        for metric in METRICS:
            if metric.name in REQUEST_METRICS | BATCH_METRICS:
                continue
            match metric.kind:
                case Kind.COUNTER:
                    self._counters[metric.name] = Counter(
                        metric.name, metric.help, metric.labels, registry=self._registry
                    )
                case Kind.GAUGE:
                    self._gauges[metric.name] = Gauge(metric.name, metric.help, metric.labels, registry=self._registry)
                case Kind.HISTOGRAM:
                    self._histograms[metric.name] = Histogram(
                        metric.name, metric.help, metric.labels, buckets=metric.buckets, registry=self._registry
                    )

    def request(self, task: str, model: str, version: str, protocol: str, code: Code, duration_s: float) -> None:
        """Counts a request that ended."""
        self._requests.add((task, model, version, protocol), code, duration_s)

    def batch(
        self,
        model: str,
        queue_s: npt.ArrayLike,
        compute_s: float,
        rows: int,
        useful_steps: int,
        padding_steps: int,
    ) -> None:
        """Counts a batch that ran. `queue_s`: seconds each row waited, [rows]."""
        waited_s = np.asarray(queue_s, dtype=np.float64)
        self._batches.add(model, waited_s, compute_s, rows, useful_steps, padding_steps)

    def rejected(self, model: str, reason: str) -> None:
        """Counts a request that was refused before any work."""
        self._counters["conveyor_requests_rejected_total"].labels(model=model, reason=reason).inc()

    def queue_depth(self, model: str, rows: int) -> None:
        """Sets how many rows of a model wait."""
        self._gauges["conveyor_queue_depth"].labels(model=model).set(rows)

    def model_loaded(self, key: ModelKey, duration_s: float) -> None:
        """Says that a version answers from now on, and how long it took to load."""
        self._gauges["conveyor_model_loaded"].labels(model=key.name, version=key.version).set(1)
        self._histograms["conveyor_model_load_duration_seconds"].labels(model=key.name).observe(duration_s)

    def model_plan(self, key: ModelKey, executor: str, device: str, precision: str) -> None:
        """Says how a version is executed."""
        self._gauges["conveyor_model_plan_info"].labels(
            model=key.name, version=key.version, executor=executor, device=device, precision=precision
        ).set(1)

    def sessions(
        self,
        model: str,
        live: int,
        state_bytes: Mapping[str, int],
        evicted: Mapping[str, int],
        moved: Mapping[str, int],
    ) -> None:
        """Takes over the sessions of a model as this process has them.

        Args:
            state_bytes: By tier.
            evicted, moved: Counts since the engine began, by reason and by where the states went.
        """
        self._gauges["conveyor_sessions_live"].labels(model=model).set(live)
        for tier, num_bytes in state_bytes.items():
            self._gauges["conveyor_session_state_bytes"].labels(model=model, tier=tier).set(num_bytes)
        for name, label, counts in (
            ("conveyor_sessions_evicted_total", "reason", evicted),
            ("conveyor_session_moves_total", "to", moved),
        ):
            for value, count in counts.items():
                key = name, model, value
                self._counters[name].labels(**{"model": model, label: value}).inc(count - self._counted.get(key, 0))
                self._counted[key] = count

    def device_memory(self, device: str, kind: str, num_bytes: int) -> None:
        """Sets the memory in use on a device."""
        self._gauges["conveyor_device_memory_bytes"].labels(device=device, kind=kind).set(num_bytes)

    def build(self, version: str, torch: str, device: str) -> None:
        """States what runs."""
        self._gauges["conveyor_build_info"].labels(version=version, torch=torch, device=device).set(1)

    def render(self) -> bytes:
        """Everything observed, in the Prometheus text format; served as `content_type`."""
        return generate_latest(self._registry)

    async def scrape(self) -> bytes:
        """The page of a server that is this process alone."""
        return self.render()

    def snapshot(self) -> list[Family]:
        """Everything observed, to be merged with what other processes of this server did."""
        return snapshot(self._registry)
