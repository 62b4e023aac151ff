"""The difference of two readings of the metrics."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from conveyor.bench.server_split import Reading, difference, parse_reading
from conveyor.telemetry.catalogue import METRICS, Kind


class Exporter:
    """The metrics of a server, named and bucketed as it does."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._metrics: dict[str, Histogram | Counter] = {}
        for metric in METRICS:
            if metric.kind is Kind.HISTOGRAM:
                self._metrics[metric.name] = Histogram(
                    metric.name, metric.help, metric.labels, buckets=metric.buckets, registry=self._registry
                )
            elif metric.kind is Kind.COUNTER:
                self._metrics[metric.name] = Counter(metric.name, metric.help, metric.labels, registry=self._registry)

    def request(self, duration_s: float, model: str = "m", protocol: str = "http") -> None:
        """A request ends."""
        labels = {"task": "sentiment", "model": model, "version": "1", "protocol": protocol}
        self._histogram("conveyor_request_duration_seconds", labels, duration_s)

    def batch(
        self, queue_s: list[float], compute_s: float, useful: int = 0, padding: int = 0, model: str = "m"
    ) -> None:
        """A batch ends."""
        for value in queue_s:
            self._histogram("conveyor_queue_duration_seconds", {"model": model}, value)
        self._histogram("conveyor_compute_duration_seconds", {"model": model}, compute_s)
        self._histogram("conveyor_batch_size", {"model": model}, len(queue_s))
        for kind, steps in (("useful", useful), ("padding", padding)):
            counter = self._metrics["conveyor_batch_steps_total"].labels(model=model, kind=kind)
            assert isinstance(counter, Counter)
            counter.inc(steps)

    def read(self) -> Reading:
        """A reading, as over HTTP."""
        return parse_reading(generate_latest(self._registry).decode())

    def _histogram(self, name: str, labels: dict[str, str], value: float) -> None:
        histogram = self._metrics[name].labels(**labels)
        assert isinstance(histogram, Histogram)
        histogram.observe(value)


def test_only_what_came_between_the_readings_counts() -> None:
    """Means are exact, shares are of the steps computed in between, and protocols are added up."""
    exporter = Exporter()
    exporter.request(20.0)
    exporter.batch([5.0] * 4, 9.0, useful=1000, padding=1000)
    before = exporter.read()
    exporter.request(0.010)
    exporter.request(0.030, protocol="grpc")
    exporter.batch([0.002, 0.004], 0.006, useful=30, padding=10)
    exporter.batch([0.006], 0.002, useful=30, padding=10)
    (split,) = difference(before, exporter.read())

    assert "m" == split.model
    assert (2, 3, 2) == (split.requests.count, split.queue.count, split.compute.count)
    assert (20.0, 4.0, 4.0) == pytest.approx((split.requests.mean_ms, split.queue.mean_ms, split.compute.mean_ms))
    assert 1.5 == pytest.approx(split.mean_batch_size)
    assert 0.25 == pytest.approx(split.padding_share)


def test_a_model_first_seen_in_between_is_there_and_an_idle_one_is_not() -> None:
    """Metrics of a model begin with its first request."""
    exporter = Exporter()
    exporter.batch([0.001], 0.001, model="idle")
    before = exporter.read()
    exporter.batch([0.001], 0.001, model="new")
    exporter.batch([0.001], 0.001, model="late")

    assert ["late", "new"] == [split.model for split in difference(before, exporter.read())]


@given(
    before=st.lists(st.floats(0, 40.0), max_size=20), values=st.lists(st.floats(1e-6, 29.0), min_size=1, max_size=60)
)
def test_a_quantile_lies_in_the_bucket_of_the_order_statistic(before: list[float], values: list[float]) -> None:
    """The level is known to within the bucket, whatever was observed before."""
    exporter = Exporter()
    for value in before:
        exporter.batch([value], value)
    reading = exporter.read()
    for value in values:
        exporter.batch([value], value)
    (split,) = difference(reading, exporter.read())
    (bounds,) = (metric.buckets for metric in METRICS if metric.name == "conveyor_queue_duration_seconds")

    for level, found_ms in ((0.5, split.queue.p50_ms), (0.9, split.queue.p90_ms), (0.99, split.queue.p99_ms)):
        rank = next(rank for rank in range(1, len(values) + 1) if rank >= level * len(values))
        true_s = sorted(values)[rank - 1]
        upper = min(bound for bound in bounds if bound >= true_s)
        lower = max((bound for bound in bounds if bound < true_s), default=0.0)
        assert 1000 * lower * (1 - 1e-9) <= found_ms <= 1000 * upper * (1 + 1e-9)


def test_beyond_the_last_bound_a_quantile_is_that_bound() -> None:
    """As Prometheus tells it: at least so much."""
    exporter = Exporter()
    before = exporter.read()
    exporter.batch([1000.0], 1000.0)
    (split,) = difference(before, exporter.read())

    assert 30_000.0 == split.queue.p50_ms


def test_a_restart_in_between_is_told() -> None:
    """Counters that went backwards give no numbers."""
    exporter = Exporter()
    exporter.batch([0.001, 0.001], 0.001)
    reading = exporter.read()

    with pytest.raises(ValueError, match="restarted"):
        difference(reading, dict.fromkeys(reading, 0.0))
