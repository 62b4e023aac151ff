"""A report for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from conveyor.bench.report import Quantiles, Report
from conveyor.bench.server_split import DurationSummary

__all__ = ["render_table"]

_LABEL_WIDTH = 14
_COLUMN_WIDTH = 10


def render_table(report: Report) -> str:
    """The numbers as text, without a line end at the end."""
    return "\n".join(
        [*_head(report), "", *_counts(report), "", *_latencies(report), *_server(report), "", *_client(report)]
    )


def _line(label: str, text: str) -> str:
    return f"{label:{_LABEL_WIDTH}}{text}".rstrip()


def _row(label: str, cells: Sequence[str]) -> str:
    return _line(label, "".join(f"{cell:>{_COLUMN_WIDTH}}" for cell in cells))


def _ms(*values: float) -> list[str]:
    return [f"{value:.2f}" for value in values]


def _head(report: Report) -> Iterator[str]:
    options = report.options
    items = "1 item" if options.items == 1 else f"{options.items} items"
    model = f" of {options.model}" if options.model else ""
    yield _line("target", f"{options.url}: {options.task}{model} over {report.protocol}, {items} a request")
    each = f" of {report.streams} streams" if report.protocol == "grpc" else ""
    if report.loop == "open":
        load = f"open loop, Poisson arrivals at {options.rate:g}/s, at most {report.connections} connections{each}"
    else:
        load = f"closed loop, {report.connections} connections{each}"
    yield _line("load", load)
    stopped = " (interrupted)" if report.interrupted else ""
    yield _line("measured", f"{report.elapsed_s:.1f} s{stopped} after {options.warmup:g} s of warm-up")


def _counts(report: Report) -> Iterator[str]:
    yield _line("requests", f"{report.arrivals} due, {report.sent} sent, {report.answered} answered")
    yield _line("throughput", f"{report.requests_per_s:.1f} requests/s, {report.items_per_s:.1f} items/s")
    deadline = report.options.deadline
    within = "no deadline" if deadline is None else f"within {deadline:g} s"
    yield _line("goodput", f"{report.goodput_per_s:.1f} requests/s ({within})")
    if not report.errors:
        yield _line("errors", "none")
    for code, failures in sorted(report.errors.items()):
        yield _line("errors", f"{failures.count} {code}: {failures.example}")


def _latencies(report: Report) -> Iterator[str]:
    yield _row("ms", ["mean", "p50", "p90", "p99", "p99.9", "max"])
    yield _row("latency", _quantiles(report.latency))
    if report.client_lag is not None:
        yield _row("sent late by", _quantiles(report.client_lag))


def _quantiles(value: Quantiles) -> list[str]:
    return _ms(value.mean_ms, value.p50_ms, value.p90_ms, value.p99_ms, value.p99_9_ms, value.max_ms)


def _server(report: Report) -> Iterator[str]:
    for split in report.server or ():
        yield ""
        yield _line("server model", f"  {split.model}")
        yield _row("ms", ["mean", "~p50", "~p90", "~p99", "count"])
        yield _row("request", _summary(split.requests))
        if split.compute.count:
            yield _row("queue", _summary(split.queue))
            yield _row("compute", _summary(split.compute))
            batch = f"{split.mean_batch_size:.1f} rows a batch, {split.padding_share:.1%} of the steps padding"
            yield _line("batches", f"  {batch}")


def _summary(value: DurationSummary) -> list[str]:
    return [*_ms(value.mean_ms, value.p50_ms, value.p90_ms, value.p99_ms), str(value.count)]


def _client(report: Report) -> Iterator[str]:
    machine = report.machine
    used = f"this process used {report.client_cpu_share:.2f} of one"
    yield _line("client", f"{machine.cpu}, {machine.cores} cores; {used}")
    for note in report.notes:
        yield _line("note", note)
