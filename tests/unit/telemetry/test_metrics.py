"""What is observed is what is exposed."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from conveyor.domain import ModelKey
from conveyor.errors import Code
from conveyor.telemetry.catalogue import METRICS
from conveyor.telemetry.metrics import Metrics

PROMTOOL = shutil.which("promtool")


@pytest.fixture
def metrics() -> Metrics:
    """Every observation made once."""
    metrics = Metrics()
    metrics.request("sentiment", "mood", "1", "http", Code.OK, 0.02)
    metrics.batch("mood", np.array([0.0002, 0.003, 0.003]), 0.007, 3, 40, 8)
    metrics.rejected("mood", "queue_full")
    metrics.queue_depth("mood", 5)
    metrics.model_loaded(ModelKey("mood", "1"), 1.5)
    metrics.model_plan(ModelKey("mood", "1"), "torch", "cpu", "float32")
    metrics.device_memory("cpu", "weights", 4096)
    metrics.build("0.1.0", "2.13.0", "cpu")
    return metrics


def _samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    families = text_string_to_metric_families(metrics.render().decode())
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def _value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return _samples(metrics).get((f"conveyor_{name}", frozenset(labels.items())))


PLANNED = {"model": "mood", "version": "1", "executor": "torch"}
REQUEST = {"task": "sentiment", "model": "mood", "version": "1", "protocol": "http"}


@pytest.mark.parametrize(
    ("expected", "name", "labels"),
    [
        (1, "requests_total", {**REQUEST, "code": "OK"}),
        (0, "request_duration_seconds_bucket", {**REQUEST, "le": "0.01"}),
        (1, "request_duration_seconds_bucket", {**REQUEST, "le": "0.025"}),
        (0.02, "request_duration_seconds_sum", REQUEST),
        (1, "queue_duration_seconds_bucket", {"model": "mood", "le": "0.00025"}),
        (3, "queue_duration_seconds_bucket", {"model": "mood", "le": "0.005"}),
        (3, "queue_duration_seconds_count", {"model": "mood"}),
        (0.007, "compute_duration_seconds_sum", {"model": "mood"}),
        (3, "batch_size_sum", {"model": "mood"}),
        (1, "batch_size_count", {"model": "mood"}),
        (40, "batch_steps_total", {"model": "mood", "kind": "useful"}),
        (8, "batch_steps_total", {"model": "mood", "kind": "padding"}),
        (1, "requests_rejected_total", {"model": "mood", "reason": "queue_full"}),
        (5, "queue_depth", {"model": "mood"}),
        (1, "model_loaded", {"model": "mood", "version": "1"}),
        (1.5, "model_load_duration_seconds_sum", {"model": "mood"}),
        (1, "model_plan_info", {**PLANNED, "device": "cpu", "precision": "float32"}),
        (4096, "device_memory_bytes", {"device": "cpu", "kind": "weights"}),
        (1, "build_info", {"version": "0.1.0", "torch": "2.13.0", "device": "cpu"}),
    ],
)
def test_observations_are_exposed(metrics: Metrics, expected: float, name: str, labels: dict[str, str]) -> None:
    """Each observation reaches the metric, the labels and the bucket it belongs to."""
    assert expected == _value(metrics, name, **labels)


def test_nothing_is_exposed_outside_the_table(metrics: Metrics) -> None:
    """Every metric is in the table or is the Python client's own about the process; no `_created` series."""
    # The parser names counters without their suffix.
    families = {family.name for family in text_string_to_metric_families(metrics.render().decode())}
    ours = {name for name in families if not name.startswith(("process_", "python_"))}
    assert {metric.name.removesuffix("_total") for metric in METRICS} == ours
    assert {"process_cpu_seconds", "python_info", "python_gc_collections"} <= families
    assert b"_created" not in metrics.render()


def test_every_metric_has_help(metrics: Metrics) -> None:
    """Every metric exposed, the client's own included, says what it is."""
    assert all(family.documentation for family in text_string_to_metric_families(metrics.render().decode()))


def test_label_values_are_escaped() -> None:
    """A quote, a backslash or a newline in a label's value is read back as it was."""
    metrics = Metrics()
    metrics.rejected('a"b\\c\nd', "queue_full")
    assert _value(metrics, "requests_rejected_total", model='a"b\\c\nd', reason="queue_full") == 1


def test_registries_are_separate(metrics: Metrics) -> None:
    """Two instances in one process do not share observations."""
    assert _value(Metrics(), "queue_depth", model="mood") is None
    assert _value(metrics, "queue_depth", model="mood") == 5


def test_content_type_is_the_text_format(metrics: Metrics) -> None:
    """Prometheus 3 refuses a scrape whose content type it does not know."""
    assert metrics.content_type.startswith("text/plain; version=")


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not on PATH")
def test_promtool_finds_nothing(metrics: Metrics) -> None:
    """`promtool check metrics` accepts the exposition without a remark."""
    assert PROMTOOL is not None
    check = subprocess.run([PROMTOOL, "check", "metrics"], input=metrics.render(), capture_output=True, check=False)
    assert (check.returncode, check.stdout, check.stderr) == (0, b"", b"")


def test_executions_are_all_counted_however_many_there_are_between_two_looks() -> None:
    """Also those of several models; what lies on a bound is below it, and nothing is counted twice."""
    metrics = Metrics()
    for _ in range(2500):
        metrics.batch("mood", [0.0001, 0.02], 0.005, 2, 10, 1)
        metrics.batch("tags", [40.0], 40.0, 1, 3, 0)
    for _ in range(2):
        assert 2500 == _value(metrics, "queue_duration_seconds_bucket", model="mood", le="0.0001")
        assert 5000 == _value(metrics, "queue_duration_seconds_count", model="mood")
        assert 2500 == _value(metrics, "compute_duration_seconds_bucket", model="mood", le="0.005")
        assert 0 == _value(metrics, "queue_duration_seconds_bucket", model="tags", le="30.0")
        assert 2500 == _value(metrics, "queue_duration_seconds_bucket", model="tags", le="+Inf")
        assert 5000 == _value(metrics, "batch_size_sum", model="mood")
        assert 25000 == _value(metrics, "batch_steps_total", model="mood", kind="useful")
        assert pytest.approx(2500 * 0.0201) == _value(metrics, "queue_duration_seconds_sum", model="mood")
