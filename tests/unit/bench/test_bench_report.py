"""A report as a table, as JSON and as a picture, and the command without its libraries."""

from __future__ import annotations

import importlib.util
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
from click.testing import CliRunner

from conveyor.bench import command
from conveyor.bench.latency import Latencies
from conveyor.bench.machine import describe_machine
from conveyor.bench.options import BenchOptions
from conveyor.bench.plot import plot
from conveyor.bench.report import Failures, Quantiles, Report
from conveyor.bench.server_split import DurationSummary, ServerSplit
from conveyor.bench.table import render_table
from conveyor.errors import InvalidArgument


def make_report(latencies_s: list[float]) -> Report:
    """A report of an open loop with these answers, and two failures."""
    latencies = Latencies()
    for value in latencies_s:
        latencies.record(value)
    summary = DurationSummary(count=4, mean_ms=1.5, p50_ms=1.0, p90_ms=2.0, p99_ms=2.5)
    return Report(
        command=["conveyor", "bench"],
        started="2026-01-01T00:00:00+00:00",
        options=BenchOptions(url="http://127.0.0.1:8000", rate=20.0, deadline=0.05, items=2),
        machine=describe_machine(),
        loop="open",
        protocol="http",
        connections=512,
        streams=1,
        interrupted=False,
        elapsed_s=2.0,
        arrivals=len(latencies_s) + 2,
        sent=len(latencies_s) + 1,
        answered=len(latencies_s),
        errors={
            "CLIENT_OVERFLOW": Failures(count=1, example="too many"),
            "RESOURCE_EXHAUSTED": Failures(count=1, example="the queue is full"),
        },
        requests_per_s=len(latencies_s) / 2,
        items_per_s=float(len(latencies_s)),
        goodput_per_s=1.0,
        latency=Quantiles.of(latencies),
        latency_histogram=latencies.encode(),
        client_lag=Quantiles.of(Latencies()),
        client_cpu_share=0.25,
        server=[
            ServerSplit(
                model="m", requests=summary, queue=summary, compute=summary, mean_batch_size=3.5, padding_share=0.125
            )
        ],
        server_build={"version": "0.1.0"},
        notes=["the first note"],
    )


def test_json_is_read_back_as_the_same_report() -> None:
    """Nothing is lost, so a stored report can be drawn again."""
    report = make_report([0.010, 0.020])

    assert report == Report.model_validate_json(report.to_json())


def test_the_table_shows_each_number_beside_its_name() -> None:
    """One line a fact, in columns."""
    lines = {
        line[:14].strip(): line[14:].split() for line in render_table(make_report([0.010] * 99 + [0.080])).split("\n")
    }

    assert [10.7, 10.0, 10.0, 10.0, 80.0, 80.0] == pytest.approx([float(cell) for cell in lines["latency"]], rel=2e-3)
    assert ["1.50", "1.00", "2.00", "2.50", "4"] == lines["queue"]
    assert ["3.5", "rows", "a", "batch,", "12.5%"] == lines["batches"][:5]
    assert "102 due, 101 sent, 100 answered" == " ".join(lines["requests"])
    assert "the first note" == " ".join(lines["note"])


def test_every_error_is_told_with_an_example() -> None:
    """A count alone does not say what was wrong."""
    table = render_table(make_report([0.010]))

    assert "1 CLIENT_OVERFLOW: too many" in table
    assert "1 RESOURCE_EXHAUSTED: the queue is full" in table


@pytest.mark.parametrize("latencies_s", [[0.010], [0.001 * n for n in range(1, 2001)], [0.0001] * 5])
def test_any_latencies_can_be_drawn(tmp_path: Path, latencies_s: list[float]) -> None:
    """One answer, many, and all alike."""
    path = tmp_path / "latency.png"
    plot(make_report(latencies_s), path)

    assert b"\x89PNG" == path.read_bytes()[:4]


def test_what_cannot_be_drawn_is_told(tmp_path: Path) -> None:
    """No answers, or no folder."""
    with pytest.raises(InvalidArgument, match="no request was answered"):
        plot(make_report([]), tmp_path / "latency.png")
    with pytest.raises(InvalidArgument, match="cannot be written"):
        plot(make_report([0.01]), tmp_path / "missing" / "latency.png")


def test_missing_libraries_are_one_line_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named."""
    find_spec = importlib.util.find_spec

    def without_aiohttp(name: str) -> ModuleSpec | None:
        return None if name == "aiohttp" else find_spec(name)

    monkeypatch.setattr(command, "find_spec", without_aiohttp)
    done = CliRunner().invoke(command.bench, ["http://127.0.0.1:8000"])

    assert 1 == done.exit_code
    assert "Error: aiohttp missing; install with: pip install 'conveyor[bench]'" == done.output.strip()
