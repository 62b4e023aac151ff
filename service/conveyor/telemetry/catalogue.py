"""Every metric this server exports, in one table. `docs/metrics.md` is printed from it:

python -m conveyor.telemetry.catalogue > docs/metrics.md
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["METRICS", "Kind", "Metric", "render_markdown"]


class Kind(StrEnum):
    """What the values of a metric mean to Prometheus."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    name: with the prefix, and `_total` for a counter.
    help: one sentence.
    buckets: upper bounds, ascending, without infinity; of a histogram only.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()


# A step of a small network takes a tenth of a millisecond, a long text on a busy server many seconds. Neighbours
# differ by 2 to 2.5, which bounds the error of a quantile that is read from the histogram.
_LATENCY_BUCKETS_S = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
# From a small package on a CPU to one that compiles and captures graphs on a GPU.
_LOAD_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
# Powers of two, as batches are grown.
_ROWS_BUCKETS = tuple(float(2**power) for power in range(13))

METRICS: tuple[Metric, ...] = (
    Metric(
        "conveyor_requests_total",
        Kind.COUNTER,
        ("task", "model", "version", "protocol", "code"),
        "Requests that ended, by outcome.",
    ),
    Metric(
        "conveyor_request_duration_seconds",
        Kind.HISTOGRAM,
        ("task", "model", "version", "protocol"),
        "Time from a request's arrival at the door to its answer, whatever the outcome.",
        _LATENCY_BUCKETS_S,
    ),
    Metric(
        "conveyor_queue_duration_seconds",
        Kind.HISTOGRAM,
        ("model",),
        "Time a row waited in the engine before its batch began.",
        _LATENCY_BUCKETS_S,
    ),
    Metric(
        "conveyor_compute_duration_seconds",
        Kind.HISTOGRAM,
        ("model",),
        "Time a batch took on the device, transfers included.",
        _LATENCY_BUCKETS_S,
    ),
    Metric("conveyor_batch_size", Kind.HISTOGRAM, ("model",), "Rows of a batch.", _ROWS_BUCKETS),
    Metric(
        "conveyor_batch_steps_total",
        Kind.COUNTER,
        ("model", "kind"),
        "Steps computed, by kind: useful where a row asked for the step, padding where none did.",
    ),
    Metric("conveyor_queue_depth", Kind.GAUGE, ("model",), "Rows that wait in the engine now."),
    Metric(
        "conveyor_requests_rejected_total",
        Kind.COUNTER,
        ("model", "reason"),
        "Requests refused before any work was done for them.",
    ),
    Metric("conveyor_sessions_live", Kind.GAUGE, ("model",), "Streaming sessions that can be used."),
    Metric(
        "conveyor_sessions_evicted_total",
        Kind.COUNTER,
        ("model", "reason"),
        "Sessions that the server ended: idle for too long, unloaded with their model, or damaged on disk.",
    ),
    Metric(
        "conveyor_session_state_bytes",
        Kind.GAUGE,
        ("model", "tier"),
        "Memory that holds the states of sessions, by tier: device or host.",
    ),
    Metric(
        "conveyor_session_moves_total",
        Kind.COUNTER,
        ("model", "to"),
        "States of sessions that were moved, by where to: host or disk when room was short, device when used again.",
    ),
    Metric("conveyor_model_loaded", Kind.GAUGE, ("model", "version"), "1 while a version is loaded and answers."),
    Metric(
        "conveyor_model_load_duration_seconds",
        Kind.HISTOGRAM,
        ("model",),
        "Time a version took to load, warm up and replay its samples.",
        _LOAD_BUCKETS_S,
    ),
    Metric(
        "conveyor_model_plan_info",
        Kind.GAUGE,
        ("model", "version", "executor", "device", "precision"),
        "Always 1; the labels say how a version is executed.",
    ),
    Metric(
        "conveyor_device_memory_bytes",
        Kind.GAUGE,
        ("device", "kind"),
        "Memory in use on a device, by kind: weights, or all that is allocated.",
    ),
    Metric("conveyor_build_info", Kind.GAUGE, ("version", "torch", "device"), "Always 1; the labels say what runs."),
)


def render_markdown() -> str:
    """The text of `docs/metrics.md`."""
    rows = [
        f"| `{metric.name}` | {metric.kind} | {', '.join(f'`{label}`' for label in metric.labels)} | {metric.help} |"
        for metric in METRICS
    ]
    bounds = [
        f"- `{metric.name}`: {', '.join(f'{bound:g}' for bound in metric.buckets)}"
        for metric in METRICS
        if metric.buckets
    ]
    return "\n".join(
        [
            "# Metrics",
            "",
            "<!-- Printed by `python -m conveyor.telemetry.catalogue`; change the table there. -->",
            "",
            "Served in the Prometheus text format at `GET /metrics`.",
            "Durations are in seconds, memory in bytes.",
            "`code` is the gRPC name of the outcome on every protocol; a model that does not exist is `unknown`.",
            "The Python client adds its own metrics of the process and the interpreter (`process_*`, `python_*`).",
            "",
            "| metric | kind | labels | meaning |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
            "## Upper bounds of the buckets",
            "",
            *bounds,
            "",
        ]
    )


if __name__ == "__main__":
    print(render_markdown(), end="")
