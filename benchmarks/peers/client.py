"""A load generator for any HTTP server: an open loop of Poisson arrivals, and a closed loop where there is no wrk.

Runs as a process of its own, on whole requests made beforehand, and prints its figures as one line of JSON:
`python -m peers.client --port P --requests FILE (--rate R | --connections N) --seconds S`

One thread, epoll, no framework: a request costs this client some 20 µs, so that it takes little of the machine from
the server it measures.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import random
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from peers.figures import percentile
from peers.work import read_file

__all__ = ["OpenLoop", "closed_loop", "open_loop", "poisson_arrivals"]

_WARMUP_S = 0.5
_DRAIN_S = 30.0
_MOST_CONNECTIONS = 1024
_OK = b"HTTP/1.1 200"


@dataclass(frozen=True)
class OpenLoop:
    """What became of Poisson arrivals.

    held: whether 99 in 100 of the requests were answered within the limit.
    p50_ms, p99_ms: from the moment a request should have left; infinite where too few were answered.
    stopped: the run was ended early, because the limit could not be held any more.
    """

    rate: float
    held: bool
    p50_ms: float
    p99_ms: float
    arrivals: int
    failed: int
    stopped: bool
    late_p99_ms: float


class _Connection:
    """A socket and the answer it is reading."""

    __slots__ = ("buffer", "end", "fresh", "index", "ok", "socket")

    def __init__(self, port: int) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setblocking(False)
        self.index = -1
        self.fresh = True
        self.clear()

    def clear(self) -> None:
        self.buffer = b""
        self.end = 0
        self.ok = False

    def take(self, data: bytes) -> bool:
        """Adds what came; returns whether the answer is complete.

        Raises:
            ValueError: An answer without a length, in chunks that are not the last.
        """
        self.buffer += data
        if not self.end:
            head_end = self.buffer.find(b"\r\n\r\n")
            if head_end < 0:
                return False
            self.ok = self.buffer.startswith(_OK)
            self.end = _answer_end(self.buffer, head_end + 4)
        return 0 < self.end <= len(self.buffer)


def _answer_end(buffer: bytes, body: int) -> int:
    """Where an answer ends, 0 if that is not known yet."""
    head = buffer[:body].lower()
    at = head.find(b"\r\ncontent-length:")
    if at >= 0:
        return body + int(head[at + 17 : head.index(b"\r\n", at + 2)])
    if b"\r\ntransfer-encoding: chunked" not in head:
        raise ValueError(f"an answer without a length: {head!r}")
    at = body
    while True:
        line = buffer.find(b"\r\n", at)
        if line < 0:
            return 0
        size = int(buffer[at:line].partition(b";")[0], 16)
        at = line + 2 + size + 2
        if size == 0:
            return at


class _Loop:
    """Connections, and the requests on them. `ended` is called with the index of a request and whether it was
    answered well."""

    def __init__(self, port: int, requests: Sequence[bytes], ended: Callable[[int, bool], None]) -> None:
        self._port = port
        self._requests = requests
        self._ended = ended
        self._poll = select.epoll()
        self._all: dict[int, _Connection] = {}
        self._free: list[_Connection] = []
        self._waiting: deque[int] = deque()

    def ask(self, index: int) -> None:
        """Sends a request on a free connection, or on a new one; waits if there are too many."""
        if self._free:
            self._send(self._free.pop(), index)
        elif len(self._all) < _MOST_CONNECTIONS:
            self._send(self._open(), index)
        else:
            self._waiting.append(index)

    def wait(self, seconds: float) -> None:
        """Takes in what comes, for so long at most."""
        # `epoll` alone rounds up to milliseconds.
        if seconds > 0:
            select.select([self._poll.fileno()], [], [], seconds)
        for number, _ in self._poll.poll(0):
            self._read(self._all[number])

    def close(self) -> None:
        """Closes every connection, answered or not."""
        for connection in self._all.values():
            connection.socket.close()
        self._poll.close()

    def _open(self) -> _Connection:
        connection = _Connection(self._port)
        self._all[connection.socket.fileno()] = connection
        self._poll.register(connection.socket.fileno(), select.EPOLLIN)
        return connection

    def _send(self, connection: _Connection, index: int) -> None:
        connection.index = index
        request = self._requests[index % len(self._requests)]
        try:
            # A request is far smaller than a socket's buffer.
            if connection.socket.send(request) != len(request):
                raise OSError("the request was cut")
        except OSError:
            self._lost(connection)

    def _read(self, connection: _Connection) -> None:
        try:
            data = connection.socket.recv(65_536)
        except OSError:
            data = b""
        if not data:
            self._lost(connection)
        elif connection.take(data):
            index, ok = connection.index, connection.ok
            connection.index, connection.fresh = -1, False
            connection.clear()
            if self._waiting:
                self._send(connection, self._waiting.popleft())
            else:
                self._free.append(connection)
            self._ended(index, ok)

    def _lost(self, connection: _Connection) -> None:
        """The server closed it. A request that met the end of an idle connection is sent again on a new one."""
        del self._all[connection.socket.fileno()]
        connection.socket.close()
        if connection.index < 0:
            self._free.remove(connection)
        elif connection.fresh or connection.buffer:
            self._ended(connection.index, False)
        else:
            self._send(self._open(), connection.index)


def poisson_arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """Ascending seconds below `seconds`: gaps are exponential, the same for a seed."""
    chance = random.Random(seed)
    found = []
    at = chance.expovariate(rate)
    while at < seconds:
        found.append(at)
        at += chance.expovariate(rate)
    return found


def open_loop(
    port: int, requests: Sequence[bytes], rate: float, seconds: float, limit_ms: float, seed: int = 0
) -> OpenLoop:
    """Sends requests as a Poisson process, whatever became of those before; the first half second is not counted.

    Ends early once three times as many requests as may have taken longer than the limit.
    """
    arrivals = poisson_arrivals(rate, _WARMUP_S + seconds, seed)
    first = next(index for index, arrival in enumerate(arrivals) if arrival >= _WARMUP_S)
    counted = len(arrivals) - first
    allowed = counted // 100
    latencies = [math.inf] * len(arrivals)
    late: list[float] = []
    ended = slow = failed = 0

    def end(index: int, ok: bool) -> None:
        nonlocal ended, slow, failed
        ended += 1
        if ok:
            latencies[index] = 1000 * (time.monotonic() - arrivals[index])
        if index >= first:
            failed += not ok
            slow += latencies[index] > limit_ms

    loop = _Loop(port, requests, end)
    start = time.monotonic() + 0.05
    arrivals = [start + arrival for arrival in arrivals]
    give_up = arrivals[-1] + _DRAIN_S
    sent = 0
    stopped = False
    while ended < len(arrivals):
        now = time.monotonic()
        while sent < len(arrivals) and arrivals[sent] <= now:
            if sent >= first:
                late.append(1000 * (now - arrivals[sent]))
            loop.ask(sent)
            sent += 1
        # Requests on their way that are late already count as well: a queue that grows shows in them first.
        overdue = sent - ended > rate * (limit_ms / 1000) * 8 + _MOST_CONNECTIONS
        if slow > 3 * allowed or overdue or now > give_up:
            stopped = True
            break
        loop.wait(max(arrivals[sent] - now, 0.0) if sent < len(arrivals) else 0.01)
    loop.close()
    found = latencies[first:]
    p99 = percentile(found, 99)
    return OpenLoop(
        rate,
        not stopped and p99 <= limit_ms,
        percentile(found, 50),
        p99,
        counted,
        failed,
        stopped,
        percentile(late, 99),
    )


def closed_loop(port: int, requests: Sequence[bytes], connections: int, seconds: float) -> dict[str, float]:
    """Each connection asks again once it is answered; figures named as those of `requests.lua`."""
    started: dict[int, float] = {}
    latencies: list[float] = []
    errors = last = 0

    def ask() -> None:
        nonlocal last
        last += 1
        started[last] = time.monotonic()
        loop.ask(last)

    def end(index: int, ok: bool) -> None:
        nonlocal errors
        latencies.append(1000 * (time.monotonic() - started.pop(index)))
        errors += not ok
        ask()

    loop = _Loop(port, requests, end)
    begin = time.monotonic()
    for _ in range(connections):
        ask()
    # However slow the server, one answer is waited for.
    while (now := time.monotonic()) < begin + seconds or (not latencies and now < begin + seconds + _DRAIN_S):
        loop.wait(max(begin + seconds - now, 0.01))
    loop.close()
    return {
        "requests": len(latencies),
        "seconds": now - begin,
        **{f"p{rank}_ms": percentile(latencies, rank) for rank in (50, 90, 99)},
        "max_ms": max(latencies, default=math.inf),
        "errors": errors,
    }


def main() -> None:
    """One measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--requests", type=Path, required=True)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--connections", type=int)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--limit-ms", type=float, default=50.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    requests = read_file(options.requests)
    # A pause of the collector would show as one of the server.
    gc.disable()
    if options.rate is not None:
        figures = asdict(
            open_loop(options.port, requests, options.rate, options.seconds, options.limit_ms, options.seed)
        )
    else:
        figures = closed_loop(options.port, requests, options.connections, options.seconds)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
