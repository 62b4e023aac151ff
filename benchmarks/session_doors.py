"""What streaming sessions cost at the doors of a real server; the parts of `benchmarks/sessions.py` that need one.

The server runs as users start it, with one front end and one engine; load generator and server share the machine.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np
import uvloop
from peers import processes
from peers.work import http_get, http_request

from conveyor.api.rpc.proto.conveyor.v1 import conveyor_pb2 as pb

__all__ = ["echo_for_ever", "live_streams", "many_sessions", "restart", "stream_over_echo"]

ROOT = Path(__file__).parents[1]
MODEL = "forecast-electricity"

_METHOD = "/conveyor.v1.Conveyor/Session"
_READY_S = 120.0
_ITEMS = 1000
_CONNECTIONS = 4
_WINDOW = 256
_PER_SECOND = 10

Figures = dict[str, Any]


@dataclass(frozen=True)
class Server:
    """A server that answers. http, grpc: its ports."""

    started: processes.Started
    http: int
    grpc: int

    def ask(self, path: str, body: object) -> Any:
        """What a POST answers."""
        return json.loads(processes.ask(self.http, http_request(self.http, path, json.dumps(body).encode())))


@contextmanager
def serving(*options: str) -> Iterator[Server]:
    """A server on the shipped models until the block ends."""
    http, rpc, metrics = processes.free_ports(3)
    command = [str(Path(sys.executable).parent / "conveyor"), "serve", "--frontends", "1", "--engines", "1"]
    command += ["--http-port", str(http), "--grpc-port", str(rpc), "--metrics-port", str(metrics)]
    command += ["--device", "cpu", "--log-level", "warning", *options]
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "server.log"
        with processes.start(command, ROOT, log, os.environ | {"PYTHONPATH": str(ROOT / "service")}) as started:
            processes.wait_ready(started, http, http_get(http, "/health/ready"), _READY_S)
            yield Server(started, http, rpc)


def many_sessions(seconds: float) -> Figures:
    """Sessions updated a second by calls of a thousand readings, closed loop, and how long a call takes."""
    with serving() as server:
        sessions = asyncio.run(open_sessions(server, _CONNECTIONS * _ITEMS))
        requests = [
            append_request(server, sessions[first : first + _ITEMS], 5000.0 + first)
            for first in range(0, len(sessions), _ITEMS)
        ]
        cpu_s, began = server.started.cpu_s(), time.perf_counter()
        calls: list[float] = []
        end = began + seconds

        def client(request: bytes) -> None:
            with Connection(server.http) as connection:
                while (asked := time.perf_counter()) < end:
                    check_items(connection.ask(request))
                    calls.append(time.perf_counter() - asked)

        in_threads([lambda request=request: client(request) for request in requests])
        took_s = time.perf_counter() - began
        return {
            "sessions_per_s": len(calls) * _ITEMS / took_s,
            "server_cpu_s_per_million": (server.started.cpu_s() - cpu_s) / (len(calls) * _ITEMS) * 1e6,
            "call_ms": percentiles(calls),
            "connections": _CONNECTIONS,
            "items": _ITEMS,
        }


def live_streams(num_sessions: int, seconds: float) -> Figures:
    """Sessions that each get ten readings a second, in calls of a thousand at their appointed times: from then to the
    answer, and whether a sample of them forecasts, bit for bit, as if each had been alone."""
    with serving() as server:
        sessions = asyncio.run(open_sessions(server, num_sessions))
        chance = random.Random(3)
        groups = [sessions[first : first + _ITEMS] for first in range(0, num_sessions, _ITEMS)]
        ticks = max(int(seconds * _PER_SECOND), 1)
        values = [[5000.0 + 1000.0 * chance.random() for _ in groups] for _ in range(ticks)]
        plan = [
            (
                tick / _PER_SECOND + index / (_PER_SECOND * len(groups)),
                append_request(server, group, values[tick][index]),
            )
            for tick in range(ticks)
            for index, group in enumerate(groups)
        ]
        due = iter(plan)
        late: list[float] = []
        lock = threading.Lock()
        began = time.perf_counter() + 0.1

        # A session's readings go one after the other, since a group comes again only after a tenth of a second.
        def client() -> None:
            with Connection(server.http) as connection:
                while True:
                    with lock:
                        at, request = next(due, (0.0, b""))
                    if not request:
                        return
                    time.sleep(max(began + at - time.perf_counter(), 0.0))
                    check_items(connection.ask(request))
                    late.append(time.perf_counter() - began - at)

        in_threads([client] * 8)
        took_s = time.perf_counter() - began
        alone = [_alone(server, [row[index] for row in values]) for index in range(min(4, len(groups)))]
        together = [
            [_forecast(server, session) for session in chance.sample(groups[index], 4)] for index in range(len(alone))
        ]
        return {
            "sessions": num_sessions,
            "readings_per_s": len(plan) * _ITEMS / took_s,
            "reading_to_answer_ms": percentiles(late),
            "identical_to_alone": all(one == each for one, many in zip(alone, together, strict=True) for each in many),
        }


def stream_over_echo(seconds: float) -> Figures:
    """Messages a second of the gRPC stream, one reading each, and of a stream that sends back what it gets, in a
    process of its own, to the same client."""
    with serving() as server:
        sessions = asyncio.run(open_sessions(server, _WINDOW))
        requests = [
            pb.SessionRequest(id=str(n), append=pb.AppendSession(session=session, values=[5000.0])).SerializeToString()
            for n, session in enumerate(sessions)
        ]
        ours = uvloop.run(_messages_per_s(server.grpc, requests, seconds, check=True))
    echo = subprocess.Popen([sys.executable, str(HERE / "sessions.py"), "--echo"], stdout=subprocess.PIPE, text=True)
    try:
        assert echo.stdout is not None
        port = int(echo.stdout.readline())
        bare = uvloop.run(_messages_per_s(port, requests, seconds, check=False))
    finally:
        echo.send_signal(signal.SIGTERM)
        echo.wait()
    return {"messages_per_s": ours, "echo_messages_per_s": bare, "over_echo": ours / bare, "unanswered": _WINDOW}


HERE = Path(__file__).parent


def restart(num_sessions: int) -> Figures:
    """Sessions that are not there, or have other steps, after a drain and a new start on the same state directory."""
    with tempfile.TemporaryDirectory() as state:
        with serving("--state-dir", state) as server:
            sessions = asyncio.run(open_sessions(server, num_sessions))
            for first in range(0, num_sessions, _ITEMS):
                with Connection(server.http) as connection:
                    check_items(connection.ask(append_request(server, sessions[first : first + _ITEMS], 5000.0)))
            before = _forecast(server, sessions[0])
            server.started.process.send_signal(signal.SIGTERM)
            drained_from = time.perf_counter()
            server.started.process.wait(60)
            drain_s = time.perf_counter() - drained_from
        with serving("--state-dir", state) as server:
            lost = 0
            for first in range(0, num_sessions, _ITEMS):
                items = [{"session": session, "values": []} for session in sessions[first : first + _ITEMS]]
                answer = server.ask("/v1/sessions/append", {"items": items})
                lost += sum(item.get("steps") != 1 for item in answer["items"])
            return {
                "sessions": num_sessions,
                "lost": lost,
                "drain_s": drain_s,
                "forecast_identical": before == _forecast(server, sessions[0]),
            }


def echo_for_ever() -> None:
    """Serves the bare stream, and prints its port."""

    async def echo(_: object, context: Any) -> None:
        while isinstance(message := await context.read(), bytes):
            await context.write(message)

    async def main() -> None:
        server = grpc.aio.server()
        handler = grpc.stream_stream_rpc_method_handler(echo)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("conveyor.v1.Conveyor", {"Session": handler}),)
        )
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        print(port, flush=True)
        await server.wait_for_termination()

    uvloop.run(main())


async def open_sessions(server: Server, count: int) -> list[str]:
    """New sessions without a history, over one stream."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc}") as channel:
        stream = channel.stream_stream(
            _METHOD,
            request_serializer=pb.SessionRequest.SerializeToString,
            response_deserializer=pb.SessionResponse.FromString,
        )()

        async def send() -> None:
            for _ in range(count):
                await stream.write(pb.SessionRequest(open=pb.OpenSession(model=MODEL, start="2024-03-01")))
            await stream.done_writing()

        sending = asyncio.create_task(send())
        answers = [answer async for answer in stream]
        await sending
    assert all(answer.WhichOneof("response") == "opened" for answer in answers), answers[:1]
    return [answer.opened.session for answer in answers]


def append_request(server: Server, sessions: Sequence[str], value: float) -> bytes:
    """A whole request with one reading for each session."""
    items = [{"session": session, "values": [value]} for session in sessions]
    return http_request(server.http, "/v1/sessions/append", json.dumps({"items": items}).encode())


async def _messages_per_s(port: int, requests: Sequence[bytes], seconds: float, *, check: bool) -> float:
    """Of one stream with as many messages unanswered as there are requests."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stream = channel.stream_stream(_METHOD)()
        end = time.perf_counter() + seconds
        sent = received = 0
        room = asyncio.Semaphore(len(requests))

        async def send() -> None:
            nonlocal sent
            while time.perf_counter() < end:
                await room.acquire()
                await stream.write(requests[sent % len(requests)])
                sent += 1
            await stream.done_writing()

        began = time.perf_counter()
        sending = asyncio.create_task(send())
        last = b""
        while isinstance(answer := await stream.read(), bytes):
            received += 1
            room.release()
            last = answer
        took_s = time.perf_counter() - began
        await sending
        assert received == sent
        assert not check or pb.SessionResponse.FromString(last).WhichOneof("response") == "appended"
    return received / took_s


class Connection:
    """A connection that is kept, and asks one thing at a time."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, request: bytes) -> bytes:
        """The body of the answer."""
        self._socket.sendall(request)
        got = b""
        while b"\r\n\r\n" not in got:
            got += self._socket.recv(2**20)
        head, _, body = got.partition(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        while len(body) < size:
            body += self._socket.recv(2**20)
        assert head.startswith(b"HTTP/1.1 200"), body
        return body


def check_items(body: bytes) -> None:
    """Makes sure that no item has failed."""
    assert b'"error"' not in body, body[:300]


def in_threads(works: Sequence[Callable[[], None]]) -> None:
    """Does all of it at once; raises what any of it raises."""
    failures: list[BaseException] = []

    def one(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=one, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Of durations, in milliseconds."""
    return {
        name: float(np.percentile(seconds, level)) * 1000 for name, level in (("p50", 50), ("p99", 99), ("max", 100))
    }


def _alone(server: Server, values: Sequence[float]) -> Any:
    """The forecast of a session that nobody shares a batch with."""
    session = server.ask("/v1/sessions", {"model": MODEL, "start": "2024-03-01"})["session"]
    for value in values:
        server.ask(f"/v1/sessions/{session}/append", {"values": [value]})
    return _forecast(server, session)


def _forecast(server: Server, session: str) -> Any:
    return server.ask(f"/v1/sessions/{session}/append", {"values": [], "horizon": 48})["result"]
