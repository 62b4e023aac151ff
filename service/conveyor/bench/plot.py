"""The latency of a report over the percentile, as HdrHistogram's plotter draws it."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from conveyor.bench.latency import Latencies
from conveyor.bench.report import Report
from conveyor.errors import InvalidArgument

__all__ = ["plot"]

_LINE = "#1f5fa8"
_DEADLINE = "#b3261e"


def plot(report: Report, path: Path) -> None:
    """Writes a PNG. The horizontal axis is 1 / (1 - percentile), so that each further nine has the same width.

    Raises:
        InvalidArgument: No request was answered, or the file cannot be written.
    """
    steps = list(Latencies.decode(report.latency_histogram).steps())
    total = report.latency.count
    if not steps:
        raise InvalidArgument("there is no latency to draw: no request was answered", field="plot")
    figure = Figure(figsize=(9, 5), dpi=150, layout="constrained")
    axes = figure.subplots()
    # A duration with `below` of `total` under it is the quantile of all levels from below / total on.
    levels = [total / (total - below) for below, _ in steps]
    # The largest one holds up to 100 %, which lies infinitely far to the right.
    right = max(total * 1.3, 2.0)
    axes.plot([*levels, right], [*(ms for _, ms in steps), steps[-1][1]], drawstyle="steps-post", color=_LINE, lw=1.8)
    latency = report.latency
    marked = {50: latency.p50_ms, 90: latency.p90_ms, 99: latency.p99_ms, 99.9: latency.p99_9_ms}
    for percent, value in marked.items():
        level = 100 / (100 - percent)
        if level <= total:
            axes.plot([level], [value], "o", color=_LINE, ms=5)
            axes.annotate(
                f"p{percent:g}\n{value:.3g} ms",
                (level, value),
                (-6, 8),
                textcoords="offset points",
                ha="right",
                fontsize=9,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
            )
    top = 1.15 * steps[-1][1]
    if report.options.deadline is not None and 1000 * report.options.deadline <= 2 * top:
        top = max(top, 1100 * report.options.deadline)
        label = f"deadline {1000 * report.options.deadline:g} ms"
        axes.axhline(1000 * report.options.deadline, color=_DEADLINE, lw=1, ls="--", label=label)
        # The one corner that an ascending curve leaves free.
        axes.legend(loc="upper left", frameon=False, fontsize=9)
    axes.set(xscale="log", xlim=(1, right), ylim=(0, top), xlabel="percentile", ylabel="latency, ms")
    ticks = [1.0, 2.0, 4.0, *(10.0**power for power in range(1, 9))]
    shown = [tick for tick in ticks if tick <= right]
    axes.set_xticks(shown, [f"{100 * (1 - 1 / tick):.7g} %" for tick in shown])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(color="#dddddd", lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(_title(report), loc="left", fontsize=10)
    try:
        figure.savefig(path, format="png")
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be written: {error.strerror}", field="plot") from error


def _title(report: Report) -> str:
    options = report.options
    if report.loop == "open":
        load = f"open loop at {options.rate:g} requests/s"
    else:
        load = f"closed loop of {report.connections * report.streams}"
    items = "1 item" if options.items == 1 else f"{options.items} items"
    model = f" ({options.model})" if options.model else ""
    first = f"{options.task}{model} over {report.protocol}, {items} a request, {load}"
    failed = report.arrivals - report.answered
    return f"{first}\n{report.answered} answered in {report.elapsed_s:.1f} s, {failed} failed; {report.machine.cpu}"
