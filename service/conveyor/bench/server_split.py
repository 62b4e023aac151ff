"""Where the server spent the time: the difference of two readings of its own metrics."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from prometheus_client.parser import text_string_to_metric_families
from pydantic import BaseModel, ConfigDict

__all__ = ["DurationSummary", "Reading", "ServerSplit", "difference", "parse_reading"]

# Name of the sample and its labels, sorted.
Reading = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]


class DurationSummary(BaseModel):
    """Durations as a histogram of the server tells them, in milliseconds.

    The mean is exact; quantiles are interpolated inside a bucket, which spans a factor of 2 to 2.5.
    """

    model_config = ConfigDict(frozen=True)

    count: int
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float


class ServerSplit(BaseModel):
    """One model's work between two readings, whoever asked for it.

    requests: requests that ended, with the time from their arrival at the door to the answer.
    queue: rows, with the time each waited for its batch.
    compute: batches, with the time each took on the device.
    padding_share: of all steps computed, those no row asked for.
    """

    model_config = ConfigDict(frozen=True)

    model: str
    requests: DurationSummary
    queue: DurationSummary
    compute: DurationSummary
    mean_batch_size: float
    padding_share: float


def parse_reading(text: str) -> Reading:
    """Reads the Prometheus text format.

    Raises:
        ValueError: The text is something else.
    """
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def difference(before: Reading, after: Reading) -> list[ServerSplit]:
    """Returns what each model did between two readings, by name; models that did nothing are left out.

    Raises:
        ValueError: A counter went backwards, so the server was restarted in between.
    """
    changes = {}
    for key, value in after.items():
        name = key[0]
        if name.endswith(("_bucket", "_count", "_sum", "_total")):
            changes[key] = value - before.get(key, 0.0)
            if name.endswith(("_bucket", "_count", "_total")) and changes[key] < 0:
                raise ValueError(f"{name} went backwards: the server was restarted during the measurement")
    models = sorted({value for _, labels in changes for label, value in labels if label == "model"})
    splits = [_split(changes, model) for model in models]
    return [split for split in splits if split.requests.count or split.compute.count]


def _split(changes: Reading, model: str) -> ServerSplit:
    batches = _total(changes, "conveyor_batch_size_count", model)
    rows = _total(changes, "conveyor_batch_size_sum", model)
    useful = _total(changes, "conveyor_batch_steps_total", model, kind="useful")
    padding = _total(changes, "conveyor_batch_steps_total", model, kind="padding")
    return ServerSplit(
        model=model,
        requests=_durations(changes, "conveyor_request_duration_seconds", model),
        queue=_durations(changes, "conveyor_queue_duration_seconds", model),
        compute=_durations(changes, "conveyor_compute_duration_seconds", model),
        mean_batch_size=rows / batches if batches else 0.0,
        padding_share=padding / (useful + padding) if useful + padding else 0.0,
    )


def _samples(changes: Reading, name: str, wanted: Mapping[str, str]) -> Iterator[tuple[dict[str, str], float]]:
    for (sample, labels), value in changes.items():
        if sample == name and wanted.items() <= dict(labels).items():
            yield dict(labels), value


def _total(changes: Reading, name: str, model: str, **labels: str) -> float:
    return math.fsum(value for _, value in _samples(changes, name, {"model": model, **labels}))


def _durations(changes: Reading, name: str, model: str) -> DurationSummary:
    count = _total(changes, f"{name}_count", model)
    buckets: dict[float, float] = {}
    for labels, value in _samples(changes, f"{name}_bucket", {"model": model}):
        bound = float(labels["le"])
        buckets[bound] = buckets.get(bound, 0.0) + value
    cumulative = sorted(buckets.items())
    return DurationSummary(
        count=round(count),
        mean_ms=1000 * _total(changes, f"{name}_sum", model) / count if count else 0.0,
        p50_ms=1000 * _quantile(cumulative, 0.5),
        p90_ms=1000 * _quantile(cumulative, 0.9),
        p99_ms=1000 * _quantile(cumulative, 0.99),
    )


def _quantile(cumulative: list[tuple[float, float]], level: float) -> float:
    """As `histogram_quantile` of Prometheus: linear in the bucket, the highest finite bound beyond it, 0 of nothing."""
    if not cumulative or not cumulative[-1][1]:
        return 0.0
    rank = level * cumulative[-1][1]
    lower = below = 0.0
    for bound, count in cumulative:
        if count >= rank and count > below:
            return lower if math.isinf(bound) else lower + (bound - lower) * (rank - below) / (count - below)
        if not math.isinf(bound):
            lower = bound
        below = count
    return lower
