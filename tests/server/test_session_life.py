"""Sessions over restarts, crashes and moves of a real server."""

from __future__ import annotations

import os
import signal
import sqlite3
import struct
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from server.test_processes import _pids, _until
from server.test_sessions import append, opened
from support.server import ServerProcess, start_server

SPLIT = ("--frontends", "1", "--engines", "2")
ONE_PROCESS = ("--frontends", "0")


def _http(server: ServerProcess) -> httpx.Client:
    return httpx.Client(base_url=server.http, trust_env=False, timeout=60)


def test_sessions_go_on_after_a_restart_and_move_to_another_server(tiny_models: Path, tmp_path: Path) -> None:
    """Drained by SIGTERM and started again with another number of processes, none is lost and all answer as one that
    was never interrupted, bit for bit; with the same key the state goes on elsewhere too."""
    state, environment = ("--state-dir", str(tmp_path / "state")), {"CONVEYOR_STATE_KEY": "a key that both have"}
    with start_server(tiny_models, *SPLIT, *state, environment=environment) as server, _http(server) as http:
        sessions = [opened(http, [10.0 + number, 12.0, 11.0]) for number in range(20)]
        undisturbed = append(http, sessions[3], [13.0], horizon=2)["result"]
        exported = http.get(f"/v1/sessions/{sessions[3]}/state").content
        assert 0 == server.stop()
    with (
        start_server(tiny_models, *ONE_PROCESS, *state, environment=environment) as server,
        _http(server) as http,
    ):
        found = [append(http, session, [13.0], horizon=2) for session in sessions if session != sessions[3]]
        assert [4] * 19 == [answer["steps"] for answer in found]
        assert 4 == http.get(f"/v1/sessions/{sessions[3]}").json()["steps"]
        elsewhere = opened(http)
        http.put(f"/v1/sessions/{elsewhere}/state", content=exported).raise_for_status()
        for session in (elsewhere, sessions[3]):
            assert undisturbed == append(http, session, [], horizon=2)["result"]
        assert 21.0 == _until(lambda: _metric(server, "conveyor_sessions_live"), lambda value: value == 21.0)
        with start_server(tiny_models, *state) as other:
            assert 1 == other.process.wait(60)
            assert "another server uses it" in other.output


@pytest.mark.parametrize("processes", [SPLIT, ONE_PROCESS])
def test_a_state_directory_that_cannot_be_read_stops_the_start(
    tiny_models: Path, tmp_path: Path, processes: Sequence[str]
) -> None:
    """With what is wrong with it, instead of attempts without end."""
    (tmp_path / "sessions.sqlite").write_bytes(b"no database" * 1000)
    with start_server(tiny_models, *processes, "--state-dir", str(tmp_path)) as server:
        assert 1 == server.process.wait(60)
        assert f"conveyor: the state directory {tmp_path} can't be used: file is not a database" in server.lines


def test_an_engine_that_is_killed_loses_no_session_that_was_checkpointed(tiny_models: Path, tmp_path: Path) -> None:
    """Sessions of other engines go on meanwhile, its own are refused with 503 until it is back."""
    state = ("--state-dir", str(tmp_path), "--session-checkpoint-s", "0.2", *SPLIT)
    with start_server(tiny_models, *state) as server, _http(server) as http:
        sessions = [opened(http, [10.0, 12.0, 11.0]) for _ in range(8)]
        _until(lambda: _steps_written(tmp_path), lambda steps: steps == [3] * 8)
        os.kill(_pids(server, "engine")[0], signal.SIGKILL)
        seen = set()

        def steps() -> list[int]:
            answers = [http.get(f"/v1/sessions/{session}") for session in sessions]
            seen.update(answer.status_code for answer in answers)
            return [answer.json().get("steps", 0) for answer in answers]

        assert [3] * 8 == _until(steps, lambda found: found == [3] * 8)
        assert seen <= {200, 503}
        assert [4] * 8 == [append(http, session, [13.0])["steps"] for session in sessions]


def _steps_written(directory: Path) -> list[int]:
    """Of each session in the state directory: one that was opened may be written before its first values are in."""
    with sqlite3.connect(directory / "sessions.sqlite") as database:
        records = database.execute("SELECT record FROM sessions").fetchall()
    return [struct.unpack_from("<HHIq", record)[3] for (record,) in records]


def _metric(server: ServerProcess, name: str) -> float:
    lines = httpx.get(server.metrics, trust_env=False, timeout=60).text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name + "{"))
