"""The metrics of several processes, on one page."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from conveyor.domain import ModelKey
from conveyor.errors import Code
from conveyor.telemetry.merge import Family, lasting, merged, render
from conveyor.telemetry.metrics import Metrics

KEY = ModelKey("m", "1")


def page(*snapshots: list[Family]) -> dict[str, float]:
    """Value by sample."""
    text = render(merged(snapshots)).decode()
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def busy(seconds: float, depth: int) -> Metrics:
    """A process that answered a request."""
    metrics = Metrics()
    metrics.request("sentiment", "m", "1", "http", Code.OK, seconds)
    metrics.queue_depth("m", depth)
    metrics.model_loaded(KEY, 0.5)
    return metrics


def test_one_process_shows_what_it_would_show_itself() -> None:
    """Families, help, types and every sample, in the same order."""
    metrics = busy(0.02, 3)
    ours = [line for line in render(metrics.snapshot()).decode().splitlines() if "conveyor_" in line]
    assert [line for line in metrics.render().decode().splitlines() if "conveyor_" in line] == ours


def test_counters_and_histograms_are_summed_and_gauges_are_not() -> None:
    """Every front end says the same of the engine; of what they counted, the sum is told."""
    shown = page(busy(0.02, 3).snapshot(), busy(0.2, 5).snapshot())

    labels = [("model", "m"), ("protocol", "http"), ("task", "sentiment"), ("version", "1")]
    assert 2 == shown[f"conveyor_requests_total{sorted([*labels, ('code', 'OK')])}"]
    assert 0.22 == shown[f"conveyor_request_duration_seconds_sum{labels}"]
    assert 1 == shown[f"conveyor_request_duration_seconds_bucket{sorted([*labels, ('le', '0.025')])}"]
    assert 2 == shown[f"conveyor_request_duration_seconds_bucket{sorted([*labels, ('le', '+Inf')])}"]
    assert 5 == shown["conveyor_queue_depth[('model', 'm')]"]
    assert 1 == shown["conveyor_model_loaded[('model', 'm'), ('version', '1')]"]


def test_memory_is_that_of_all_processes() -> None:
    """An operator asks what the server takes, not what its largest part takes."""
    one = Family("process_resident_memory_bytes", "", "gauge", [("process_resident_memory_bytes", {}, 100.0)])
    assert 200 == page([one], [one])["process_resident_memory_bytes[]"]


def test_of_an_ended_process_only_what_it_counted_stays() -> None:
    """How deep its queue was is no longer true."""
    shown = page(lasting(busy(0.02, 3).snapshot()), Metrics().snapshot())

    assert not any(name.startswith("conveyor_queue_depth") for name in shown)
    assert 1 == sum(value for name, value in shown.items() if name.startswith("conveyor_requests_total"))
