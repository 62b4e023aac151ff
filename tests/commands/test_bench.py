"""`conveyor bench` against a real server: what it counts, never how fast it is."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from conveyor.bench.command import bench
from conveyor.bench.latency import Latencies
from conveyor.bench.report import Report
from conveyor.bench.server_split import parse_reading
from support.packages import write_tiny_models
from support.server import ServerProcess, start_server

BRIEF = ["--duration", "0.5", "--warmup", "0.1"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for all."""
    with start_server(write_tiny_models(tmp_path_factory.mktemp("models"))) as process:
        yield process


def call(*arguments: str) -> Result:
    """The command in this process, as far as it goes without signals."""
    return CliRunner().invoke(bench, list(arguments), prog_name="conveyor bench")


def answered(server: ServerProcess) -> float:
    """Requests the server has answered so far."""
    with urllib.request.urlopen(server.metrics) as response:
        reading = parse_reading(response.read().decode())
    return sum(value for (name, _), value in reading.items() if name == "conveyor_requests_total")


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("load", [["--rate", "60"], ["--connections", "2"]], ids=["open", "closed"])
def test_every_request_is_accounted_for(server: ServerProcess, tmp_path: Path, protocol: str, load: list[str]) -> None:
    """The server counted as many requests as the client sent, and the rows and batches fit them."""
    output, picture = tmp_path / "report.json", tmp_path / "latency.png"
    grpc = ["--grpc", server.grpc] if protocol == "grpc" else []
    done = call(server.http, *load, *grpc, *BRIEF, "--items", "3", "--output", str(output), "--plot", str(picture))
    assert 0 == done.exit_code, done.output
    report = Report.model_validate_json(output.read_text())
    assert report.server is not None
    (split,) = report.server

    assert (protocol, {}, False) == (report.protocol, report.errors, report.interrupted)
    assert 0 < report.answered == report.sent == report.arrivals == report.latency.count
    assert report.answered == Latencies.decode(report.latency_histogram).count
    assert report.requests_per_s == report.goodput_per_s == pytest.approx(report.answered / report.elapsed_s)
    assert 3 * report.requests_per_s == pytest.approx(report.items_per_s)
    latency = report.latency
    assert latency.p50_ms <= latency.p90_ms <= latency.p99_ms <= latency.p99_9_ms <= latency.max_ms
    assert (report.loop == "open") == (report.client_lag is not None)
    assert ("sentiment-en", report.answered, 3 * report.answered) == (
        split.model,
        split.requests.count,
        split.queue.count,
    )
    assert 3 * report.answered == pytest.approx(split.mean_batch_size * split.compute.count)
    assert 0 <= split.padding_share < 1
    assert "torch" in report.server_build
    assert b"\x89PNG" == picture.read_bytes()[:4]
    for word in ("p99.9", "goodput", "queue", "compute", "padding"):
        assert word in done.stdout


@pytest.mark.parametrize("task", ["tag", "forecast"])
def test_other_tasks_take_items_from_a_file(server: ServerProcess, tmp_path: Path, task: str) -> None:
    """Over gRPC alone there are no metrics, and the report says so."""
    items = {"tag": ["two ships", ""], "forecast": [{"values": [1.0, None, 2.0]}]}[task]
    source, output = tmp_path / "items.jsonl", tmp_path / "report.json"
    source.write_text("".join(json.dumps(item) + "\n" for item in items))
    url = f"grpc://{server.grpc}"
    done = call(url, "--task", task, "--input", str(source), "--streams", "2", *BRIEF, "--output", str(output))
    report = Report.model_validate_json(output.read_text())

    assert ({}, None) == (report.errors, report.server)
    assert report.answered > 0
    assert "--metrics-url" in done.stdout


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_errors_have_the_name_of_their_code(server: ServerProcess, tmp_path: Path, protocol: str) -> None:
    """A deadline nobody can keep: no goodput, and each request counted under a code.

    Of many texts, because gRPC makes a millisecond of it, in which one may be answered.
    """
    output = tmp_path / "report.json"
    url = server.http if protocol == "http" else f"grpc://{server.grpc}"
    load = ["--connections", "1", "--items", "1000", "--deadline", "0.000001"]
    done = call(url, *load, *BRIEF, "--output", str(output))
    report = Report.model_validate_json(output.read_text())

    assert 0 == done.exit_code, done.output
    assert (0, 0.0) == (report.answered, report.goodput_per_s)
    assert {"DEADLINE_EXCEEDED", "CLIENT_DEADLINE_EXCEEDED"} >= set(report.errors)
    assert 0 < report.arrivals == sum(failures.count for failures in report.errors.values())


def test_a_request_the_server_refuses_is_told_at_once(server: ServerProcess) -> None:
    """With the server's own sentence."""
    done = call(server.http, "--model", "nobody")
    assert 1 == done.exit_code
    assert "NOT_FOUND" in done.output
    assert "nobody" in done.output


def test_a_server_that_is_not_there_is_told_at_once() -> None:
    """Port 1 of the loopback interface has no listener."""
    done = call("http://127.0.0.1:1")
    assert 1 == done.exit_code
    assert "CLIENT_CONNECT" in done.output


def test_another_machine_is_not_loaded_by_mistake() -> None:
    """The refusal names the flag."""
    done = call("http://192.0.2.1:8000")
    assert 1 == done.exit_code
    assert "--allow-remote" in done.output


def test_an_interruption_gives_the_report_so_far(server: ServerProcess, tmp_path: Path) -> None:
    """Ctrl-C during a long measurement: the numbers, and the exit code of an interrupted command."""
    output = tmp_path / "report.json"
    code = "from conveyor.bench.command import bench; bench()"
    command = [sys.executable, "-c", code, server.http, "--rate", "50", "--duration", "600", "--warmup", "0"]
    process = subprocess.Popen([*command, "--output", str(output)], stdout=subprocess.PIPE, text=True)
    try:
        before = answered(server)
        while answered(server) < before + 20:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    report = Report.model_validate_json(output.read_text())

    assert 130 == process.returncode
    assert report.interrupted
    assert "(interrupted)" in printed
    assert 0 < report.answered <= report.arrivals
    assert report.elapsed_s < 600
