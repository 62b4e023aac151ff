"""A real server process on free ports of the loopback interface, stopped by its process id."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

__all__ = ["ServerProcess", "ask_health", "open_connections", "start_server"]

_READY_TIMEOUT_S = 200.0


@dataclass
class ServerProcess:
    """A server that said it is ready.

    lines: what it printed so far.
    read_to_end: set when there will be no more.
    """

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    ready: threading.Event = field(default_factory=threading.Event)
    read_to_end: threading.Event = field(default_factory=threading.Event)

    @property
    def http(self) -> str:
        """URL of the HTTP door."""
        return self._address(r"http +(http://\S+)")

    @property
    def metrics(self) -> str:
        """URL of the second metrics port."""
        return self._address(r"metrics +(http://\S+)")

    @property
    def grpc(self) -> str:
        """Address of the gRPC door."""
        return self._address(r"grpc +(\S+)")

    @property
    def output(self) -> str:
        """All it printed; once it has ended, to its last line."""
        if self.process.poll() is not None:
            self.read_to_end.wait(_READY_TIMEOUT_S)
        return "\n".join(self.lines)

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout_s: float = 60.0) -> int:
        """Sends a signal and waits for the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout_s)

    def _address(self, pattern: str) -> str:
        found = re.search(pattern, self.output)
        assert found, self.output
        return found[1]

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if line.startswith("ready"):
                self.ready.set()
        self.read_to_end.set()
        self.ready.set()


@contextmanager
def start_server(models: Path, *options: str, environment: dict[str, str] | None = None) -> Iterator[ServerProcess]:
    """Runs `conveyor serve` on free ports until the block ends."""
    command = [sys.executable, "-m", "conveyor", "serve", "--models", str(models), "--http-port", "0"]
    command += ["--grpc-port", "0", "--metrics-port", "0", "--device", "cpu", *options]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | (environment or {})
    )
    server = ServerProcess(process)
    reader = threading.Thread(target=server._read, daemon=True)
    reader.start()
    try:
        assert server.ready.wait(_READY_TIMEOUT_S), server.output
        yield server
    finally:
        server.stop(signal.SIGKILL if process.poll() is None and not server.ready.is_set() else signal.SIGTERM)
        reader.join()
        process.stdout.close()  # type: ignore[union-attr]


def open_connections(server: ServerProcess, count: int) -> list[HTTPConnection]:
    """Connections to the HTTP door that stay open; unlike those of httpx, they tell when they are closed or reset."""
    connections = [HTTPConnection(urlsplit(server.http).netloc, timeout=30) for _ in range(count)]
    for connection in connections:
        connection.connect()
        connection.auto_open = 0
    return connections


def ask_health(connection: HTTPConnection) -> int:
    """The status of `/health/ready` over this connection."""
    connection.request("GET", "/health/ready")
    with connection.getresponse() as response:
        response.read()
        return response.status
