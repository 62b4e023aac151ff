"""The table of metrics: Prometheus' naming rules, and the page printed from it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from conveyor.telemetry.catalogue import METRICS, Kind, Metric, render_markdown

PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"

# Labels as promised to users; dashboards depend on them.
PROMISED = {
    "requests_total": ("task", "model", "version", "protocol", "code"),
    "request_duration_seconds": ("task", "model", "version", "protocol"),
    "queue_duration_seconds": ("model",),
    "compute_duration_seconds": ("model",),
    "batch_size": ("model",),
    "batch_steps_total": ("model", "kind"),
    "queue_depth": ("model",),
    "requests_rejected_total": ("model", "reason"),
    "sessions_live": ("model",),
    "sessions_evicted_total": ("model", "reason"),
    "session_state_bytes": ("model", "tier"),
    "session_moves_total": ("model", "to"),
    "model_loaded": ("model", "version"),
    "model_load_duration_seconds": ("model",),
    "model_plan_info": ("model", "version", "executor", "device", "precision"),
    "device_memory_bytes": ("device", "kind"),
    "build_info": ("version", "torch", "device"),
}
# As in promtool's linter: units that have a base unit, and the base units.
NON_BASE_UNITS = {"ms", "us", "ns", "milliseconds", "microseconds", "minutes", "hours", "days", "kb", "mb", "gb"}
NON_BASE_UNITS |= {"kilobytes", "megabytes", "gigabytes", "kib", "mib", "gib", "percent", "celsius_milli"}
RESERVED_SUFFIXES = ("_count", "_sum", "_bucket")

each_metric = pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)


def test_names_and_labels_are_those_promised() -> None:
    """The table holds the promised metrics with the promised labels, in order, and no others."""
    assert {f"conveyor_{name}": labels for name, labels in PROMISED.items()} == {m.name: m.labels for m in METRICS}


@each_metric
def test_follows_the_rules_of_promtool(metric: Metric) -> None:
    """Names are lower case with base units and a kind's own suffix, labels are not reserved, help is a sentence."""
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", metric.name)
    assert not NON_BASE_UNITS & set(metric.name.split("_"))
    assert (metric.kind is Kind.COUNTER) == metric.name.endswith("_total")
    assert not metric.name.endswith(RESERVED_SUFFIXES)
    assert not {"le", "quantile"} & set(metric.labels)
    assert re.fullmatch(r"[A-Z1][^\n]+\.", metric.help)


@each_metric
def test_buckets_belong_to_histograms_and_ascend(metric: Metric) -> None:
    """A histogram has strictly ascending bounds, and nothing else has any."""
    assert (metric.kind is Kind.HISTOGRAM) == bool(metric.buckets)
    assert sorted(set(metric.buckets)) == list(metric.buckets)


@pytest.mark.parametrize("name", ["request", "queue", "compute"])
def test_latency_buckets_reach_from_below_a_millisecond_to_over_ten_seconds(name: str) -> None:
    """Durations of a request are resolved from fractions of a millisecond to more than ten seconds."""
    (metric,) = (metric for metric in METRICS if metric.name == f"conveyor_{name}_duration_seconds")
    assert metric.buckets[0] < 0.001
    assert metric.buckets[-1] > 10


def test_the_page_is_the_table() -> None:
    """`docs/metrics.md` is what the table prints: run `python -m conveyor.telemetry.catalogue > docs/metrics.md`."""
    assert render_markdown() == PAGE.read_text(encoding="utf-8")
