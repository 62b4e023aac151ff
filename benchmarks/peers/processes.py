"""Servers as processes: started on free ports of the loopback interface, measured with all their children, stopped."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ServerFailed", "Started", "ask", "free_ports", "settle", "start"]

_STOP_S = 20.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class ServerFailed(Exception):
    """A server did not start, or ended; holds the end of its log."""


@dataclass(frozen=True)
class Started:
    """A server that runs."""

    process: subprocess.Popen[bytes]
    log: Path

    def cpu_s(self) -> float:
        """CPU seconds, user and system, of the process and all its descendants so far."""
        fields = [_stat(pid) for pid in [self.process.pid, *_descendants(self.process.pid)]]
        # With those of children that ended and were waited for.
        return sum(sum(map(int, found[11:15])) for found in fields if found) / _TICKS_PER_S

    def check(self) -> None:
        """Raises ServerFailed if the process has ended."""
        if self.process.poll() is not None:
            raise ServerFailed(f"the server ended with {self.process.returncode}: {self.tail()}")

    def tail(self) -> str:
        """The end of the log."""
        return self.log.read_text(errors="replace")[-2000:]


@contextmanager
def start(command: Sequence[str], directory: Path, log: Path, environment: Mapping[str, str]) -> Iterator[Started]:
    """Runs a server until the block ends; then it and what it left behind are stopped by their process ids."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that Ctrl-C reaches this program alone, which then stops the server
        )
    try:
        yield Started(process, log)
    finally:
        children = {pid: _started_at(pid) for pid in _descendants(process.pid)}
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pid, moment in children.items():
            # Unless the number belongs to another process by now.
            if moment is not None and _started_at(pid) == moment:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for listener in sockets:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in sockets]
    finally:
        for listener in sockets:
            listener.close()


def ask(port: int, request: bytes, timeout_s: float = 30.0) -> bytes:
    """Sends a whole request and returns the body of the answer.

    Raises:
        OSError: No answer, or one that is not 200.
    """
    with socket.create_connection(("127.0.0.1", port), timeout_s) as connection:
        connection.sendall(request)
        response = http.client.HTTPResponse(connection, method="POST")
        try:
            response.begin()
            body = response.read()
        except http.client.HTTPException as error:
            raise OSError(f"no answer of HTTP: {error!r}") from error
    if response.status != 200:
        raise OSError(f"{response.status}: {body[:500]!r}")
    return body


def wait_ready(started: Started, port: int, request: bytes, timeout_s: float) -> None:
    """Waits until a server answers.

    Raises:
        ServerFailed: It ended, or did not answer in time.
    """
    end = time.monotonic() + timeout_s
    while True:
        started.check()
        try:
            ask(port, request)
            return
        except OSError as error:
            if time.monotonic() > end:
                raise ServerFailed(f"no answer for {timeout_s:g} s ({error}): {started.tail()}") from error
            time.sleep(0.2)


def settle(port: int, request: bytes, quick_s: float = 0.05, timeout_s: float = 20.0) -> None:
    """Waits until a server has worked off what it was sent and answers quickly again, or for the time at most."""
    end = time.monotonic() + timeout_s
    while (before := time.monotonic()) < end:
        with contextlib.suppress(OSError):
            ask(port, request)
            if time.monotonic() - before < quick_s:
                return
        time.sleep(0.05)


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: list[int] = []
    following = [pid]
    while following:
        following = [child for parent in following for child in children.get(parent, ())]
        found += following
    return found


def _started_at(pid: int) -> int | None:
    """When a process started, in ticks since boot; None if there is none."""
    fields = _stat(pid)
    return int(fields[19]) if fields else None


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name: state, parent, …; empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
