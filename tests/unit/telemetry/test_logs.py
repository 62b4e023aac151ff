"""One line a record, on standard error, whoever logs."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from conveyor.errors import Code
from conveyor.telemetry.logs import configure, log_request


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    configuration = structlog.get_config()
    yield
    root.setLevel(level)
    root.handlers[:] = handlers
    structlog.configure(**configuration)


def _lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def _log_request(code: Code, **durations: float) -> None:
    log_request(
        request_id="r-1",
        task="sentiment",
        model="mood",
        version="1",
        protocol="http",
        code=code,
        duration_s=0.0123456789,
        **durations,
    )


def test_a_request_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A request's line is one JSON object with its identity, outcome and durations in seconds."""
    configure("info")
    _log_request(Code.OK, queue_s=0.001, compute_s=0.002)
    (line,) = _lines(capsys)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "request",
        "level": "info",
        "logger": "conveyor.requests",
        "request_id": "r-1",
        "task": "sentiment",
        "model": "mood",
        "version": "1",
        "protocol": "http",
        "code": "OK",
        "duration_s": 0.012346,
        "queue_s": 0.001,
        "compute_s": 0.002,
    }


def test_unknown_durations_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """A request that never reached the engine has no queue or compute time in its line."""
    configure("info")
    _log_request(Code.INVALID_ARGUMENT)
    (line,) = _lines(capsys)
    assert not {"queue_s", "compute_s"} & line.keys()


@pytest.mark.parametrize(("code", "level"), [(code, "error" if code is Code.INTERNAL else "info") for code in Code])
def test_only_faults_of_the_server_are_errors(capsys: pytest.CaptureFixture[str], code: Code, level: str) -> None:
    """A line is at level error if and only if the server is at fault."""
    configure("info")
    _log_request(code)
    assert [(level, code.value)] == [(line["level"], line["code"]) for line in _lines(capsys)]


def test_standard_logging_is_routed(capsys: pytest.CaptureFixture[str]) -> None:
    """A line of the standard library's logging, as uvicorn and grpc write, is the same kind of JSON object."""
    configure("info")
    logging.getLogger("uvicorn.error").warning("port %d is taken", 8000, extra={"port": 8000})
    (line,) = _lines(capsys)
    assert (
        line["event"],
        line["level"],
        line["logger"],
        line["port"],
    ) == ("port 8000 is taken", "warning", "uvicorn.error", 8000)


def test_level(capsys: pytest.CaptureFixture[str]) -> None:
    """Lines under the level are not written, from either library; a second call replaces the first."""
    configure("info")
    configure("warning")
    _log_request(Code.OK)
    logging.getLogger("grpc").info("quiet")
    logging.getLogger("grpc").error("loud")
    assert [line["event"] for line in _lines(capsys)] == ["loud"]


@pytest.mark.parametrize("stream", [io.StringIO(), _Terminal()], ids=["lines", "terminal"])
def test_a_traceback_shows_no_local_values(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception is logged with its traceback and without the values of variables, which may be a user's."""
    monkeypatch.setattr("sys.stderr", stream)
    configure("info")
    # Put together at run time: the traceback shows the lines of this file, but not what they made.
    private = " ".join(str(number) for number in range(3))
    try:
        raise RuntimeError(f"failed on {len(private)} characters")
    except RuntimeError:
        structlog.stdlib.get_logger("conveyor.test").exception("lost")
    assert "RuntimeError: failed on 5 characters" in stream.getvalue()
    assert private not in stream.getvalue()


def test_a_terminal_gets_no_control_sequences_of_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal lines are for people, and what a client sent is shown quoted."""
    terminal = _Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    configure("info")
    structlog.stdlib.get_logger("conveyor.test").info("request", request_id="\x1b[2Jgone\n")
    assert r"'\x1b[2Jgone\n'" in terminal.getvalue()
    assert "\x1b[2J" not in terminal.getvalue()
    assert not terminal.getvalue().startswith("{")


def test_a_line_that_nobody_reads_harms_no_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where standard error is a pipe whose reader has gone, requests are still answered."""

    class Gone(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr("sys.stderr", Gone())
    configure("info")
    _log_request(Code.OK)


def test_two_libraries_write_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line of ours and a record of the standard library from two threads never wait for each other."""
    in_record, line_written = threading.Event(), threading.Event()

    class Meeting(io.StringIO):
        def write(self, text: str) -> int:
            if "record" in text:
                in_record.set()
                line_written.wait(0.2)
            else:
                line_written.set()
            return super().write(text)

    stream = Meeting()
    monkeypatch.setattr("sys.stderr", stream)
    configure("info")
    record = threading.Thread(target=logging.getLogger("grpc").warning, args=("record",), daemon=True)
    line = threading.Thread(target=structlog.stdlib.get_logger("conveyor.test").info, args=("line",), daemon=True)
    record.start()
    in_record.wait()
    line.start()
    for thread in (record, line):
        thread.join(10)

    assert {"record", "line"} == {json.loads(written)["event"] for written in stream.getvalue().splitlines()}
    assert not record.is_alive()
    assert not line.is_alive()
