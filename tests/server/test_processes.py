"""The server in several processes: what its users see when one of them is lost."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import grpc
import httpx
import pytest

from support.rpc import Client, pb
from support.server import ServerProcess, ask_health, open_connections, start_server

WITHIN_S = 90.0

ValueT = TypeVar("ValueT")


@pytest.fixture
def server(tiny_models: Path) -> Iterator[ServerProcess]:
    """Two front ends with both doors and an engine."""
    with start_server(tiny_models, "--frontends", "2", "--http-frontends", "2", "--engines", "1") as server:
        yield server


def test_an_engine_that_is_lost_is_started_again(server: ServerProcess) -> None:
    """Meanwhile requests are refused with 503 and the server says it is not ready; then all is as before."""
    with httpx.Client(base_url=server.http, trust_env=False, timeout=60) as http:
        before = http.post("/v1/tag", json={"inputs": "a good film"}).json()
        os.kill(_pids(server, "engine")[0], signal.SIGKILL)
        refused = _until(lambda: _ask(http), lambda answer: answer.status_code != 200)
        assert (503, "UNAVAILABLE") == (refused.status_code, refused.json()["code"])
        assert int(refused.headers["retry-after"]) >= 1
        _until(lambda: http.get("/health/ready"), lambda answer: answer.status_code == 200)
        _until(lambda: _ask(http), lambda answer: answer.status_code == 200)
        assert before == http.post("/v1/tag", json={"inputs": "a good film"}).json()
    assert 2 == len(_pids(server, "engine"))
    assert 0 == server.stop()


def test_a_front_end_that_is_lost_is_started_again(server: ServerProcess) -> None:
    """The other one and the engine go on, both doors stay open, and what was counted is not forgotten."""
    with httpx.Client(base_url=server.http, trust_env=False, timeout=60) as http:
        assert 200 == _ask(http).status_code
    assert 1 == _answered(server)
    for pid in _pids(server, "front end"):
        os.kill(pid, signal.SIGKILL)

    # New connections wait in the server's own sockets until somebody takes them.
    answer = _until(lambda: _ask_anew(server), lambda answer: answer is not None and answer.status_code == 200)
    assert answer is not None
    client = Client(server.grpc)
    _until(lambda: _call(client), lambda found: found == "sentiment-en")
    client.close()
    assert 3 <= _answered(server)
    assert 0 == server.stop()


def test_http_needs_no_more_front_ends_than_there_are_engines(tiny_models: Path) -> None:
    """The second one speaks gRPC alone: when it is lost, no HTTP connection is, and another takes its place."""
    with start_server(tiny_models, "--frontends", "2", "--engines", "1") as server:
        connections = open_connections(server, 16)
        assert [200] * 16 == [ask_health(connection) for connection in connections]
        os.kill(_pids(server, "front end")[1], signal.SIGKILL)
        _until(lambda: len(_pids(server, "front end")), lambda started: started == 3)
        assert [200] * 16 == [ask_health(connection) for connection in connections]
        for connection in connections:
            connection.close()

        first = _pids(server, "front end")[0]
        os.kill(first, signal.SIGSTOP)
        try:
            # Only the new one can answer, and it gets a part of the connections.
            _until(lambda: _call_anew(server), lambda found: found == "sentiment-en")
        finally:
            os.kill(first, signal.SIGCONT)
        assert 0 == server.stop()


def test_nothing_outlives_the_process_that_watches(server: ServerProcess) -> None:
    """Also when it is killed: no front end keeps the port, no engine the device."""
    pids = [*_pids(server, "engine"), *_pids(server, "front end")]
    server.stop(signal.SIGKILL)

    _until(lambda: [pid for pid in pids if _runs(pid)], lambda found: not found)


def test_a_process_that_is_lost_again_and_again_ends_the_server(server: ServerProcess) -> None:
    """What starting does not mend is said, with an exit code, to whoever runs the server."""

    def kill_latest() -> int | None:
        for pid in [pid for pid in _pids(server, "engine") if _runs(pid)]:
            os.kill(pid, signal.SIGKILL)
        return server.process.poll()

    assert 1 == _until(kill_latest, lambda code: code is not None)
    assert "processes were lost" in server.output


def test_every_front_end_answers_and_one_page_counts_them_all(server: ServerProcess) -> None:
    """Connections are spread; both doors and both metrics pages show the sum."""

    def ask(_: int) -> str:
        with httpx.Client(base_url=server.http, trust_env=False, timeout=60) as http:
            assert 200 == _ask(http).status_code
            return "ok"

    with ThreadPoolExecutor(4) as pool:
        assert 40 == len(list(pool.map(ask, range(40))))
    assert 40 == _answered(server)
    page = httpx.get(f"{server.http}/metrics", trust_env=False, timeout=60).text
    assert 40 == _value(page, 'conveyor_queue_duration_seconds_count{model="sentiment-en"}')
    assert 1 == _value(page, 'conveyor_model_loaded{model="sentiment-en",version="1"}')


def _ask(http: httpx.Client) -> httpx.Response:
    return http.post("/v1/sentiment", json={"inputs": "a good film"})


def _ask_anew(server: ServerProcess) -> httpx.Response | None:
    try:
        with httpx.Client(base_url=server.http, trust_env=False, timeout=10) as http:
            return _ask(http)
    except httpx.TransportError:
        return None


def _call(client: Client, timeout: float = 30.0) -> str | None:
    try:
        return str(client.call("Sentiment", pb.SentimentRequest(inputs=["good"]), timeout=timeout).model)
    except grpc.RpcError:
        return None


def _call_anew(server: ServerProcess) -> str | None:
    client = Client(server.grpc)
    try:
        return _call(client, timeout=1.0)
    finally:
        client.close()


def _answered(server: ServerProcess) -> float:
    page = httpx.get(server.metrics, trust_env=False, timeout=60).text
    lines = [line for line in page.splitlines() if line.startswith("conveyor_requests_total") and 'code="OK"' in line]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def _value(page: str, sample: str) -> float:
    (line,) = [line for line in page.splitlines() if line.startswith(sample + " ")]
    return float(line.rpartition(" ")[2])


def _pids(server: ServerProcess, role: str) -> list[int]:
    """Of every process of a role that was started, in order."""
    logged = [json.loads(line) for line in list(server.lines) if line.startswith("{")]
    started = [line for line in logged if line["event"] == "a process of the server was started"]
    return [int(line["pid"]) for line in started if line["role"] == role]


def _runs(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def _until(ask: Callable[[], ValueT], enough: Callable[[ValueT], bool]) -> ValueT:
    """Asks until the answer will do."""
    deadline = time.monotonic() + WITHIN_S
    while not enough(answer := ask()):
        assert time.monotonic() < deadline, answer
        time.sleep(0.02)
    return answer
