"""The task routes as they are seen from a connection: methods, paths, framing, and clients that leave."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import socket
import threading
from collections.abc import AsyncIterator

import pytest
from fake_gateway import FakeGateway, question

from conveyor.api.rest.protocol import Connection
from conveyor.errors import Unavailable
from conveyor.gateway.limits import Limits
from conveyor.lifecycle.phase import Phase

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("server")]


@pytest.fixture
def limits() -> Limits:
    """As served."""
    return Limits()


@pytest.fixture(params=["small", "large"], autouse=True)
def _size(request: pytest.FixtureRequest, gateway: FakeGateway) -> None:
    """Whether requests are answered without a task: no client can tell."""
    gateway.is_small = request.param == "small"


class _Client:
    """One connection, which reads one answer after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, sock: socket.socket) -> _Client:
        return cls(*await asyncio.open_connection(*sock.getsockname()))

    async def send(self, raw: bytes) -> None:
        self.writer.write(raw)
        await self.writer.drain()

    async def answer(self, *, has_body: bool = True) -> tuple[int, list[tuple[str, str]], bytes]:
        """Status, headers in small letters, body."""
        status, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().strip().lower().split("\r\n")
        headers = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
        size = int(dict(headers).get("content-length", "0")) if has_body else 0
        return int(status.split()[1]), headers, await self.reader.readexactly(size)

    async def label(self) -> str:
        status, _, body = await self.answer()
        assert 200 == status
        return str(json.loads(body)["results"][0]["label"])

    def close(self) -> None:
        self.writer.close()


@pytest.fixture
async def client(listening_socket) -> AsyncIterator[_Client]:
    """A connection."""
    client = await _Client.connect(listening_socket)
    yield client
    client.close()


def _post(text: str, *headers: str, target: str = "/v1/sentiment", colon: str = ": ") -> bytes:
    body = json.dumps({"inputs": text}, separators=(",", colon)).encode()
    head = [f"POST {target} HTTP/1.1", "Host: c", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*head, "", ""]).encode() + body


@pytest.mark.parametrize("seed", range(8))
async def test_requests_are_what_they_are_however_their_bytes_are_cut(client, seed: int) -> None:
    """Heads repeat and bodies do not, also bodies that look like the end of a head; pieces end anywhere."""
    chance = random.Random(seed)
    texts = [chance.choice(["one", "two", "six", "eleven"]) for _ in range(40)]
    headers = (), ("X-Request-Id: mine",), ("A: b", "C: d")
    requests = [_post(text, *chance.choice(headers), colon=chance.choice([":", ":\r\n\r\n"])) for text in texts]

    async def send() -> None:
        # Some whole, as most clients send them, others cut or several at once.
        pieces = []
        for raw in requests:
            where = chance.choice([0, 0, 0, chance.randrange(len(raw))])
            if pieces and chance.random() < 0.2:
                pieces[-1] += raw[:where]
            elif where:
                pieces.append(raw[:where])
            pieces.append(raw[where:])
        for piece in pieces:
            await client.send(piece)
            await asyncio.sleep(chance.choice([0, 0, 0.002]))

    sending = asyncio.create_task(send())
    assert texts == [await client.label() for _ in texts]
    await sending


async def test_pipelined_requests_are_answered_in_order(client) -> None:
    """Requests that were sent without waiting for an answer get theirs one after the other, whatever the route."""
    await client.send(_post("one") + b"GET /health/live HTTP/1.1\r\nHost: c\r\n\r\n" + _post("two") + _post("three"))

    assert "one" == await client.label()
    assert b'{"status":"live"}' == (await client.answer())[2]
    assert ["two", "three"] == [await client.label(), await client.label()]


@pytest.mark.parametrize("path", ["/v1/sentiment", "/v1/tag", "/v1/forecast"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
async def test_tasks_take_post_alone(client, gateway, method, path) -> None:
    """Any other method is 405 and told which one is accepted."""
    await client.send(f"{method} {path} HTTP/1.1\r\nHost: c\r\nX-Request-Id: m\r\n\r\n".encode())
    status, headers, body = await client.answer(has_body=method != "HEAD")

    assert (405, "post", "m") == (status, dict(headers)["allow"], dict(headers)["x-request-id"])
    assert method == "HEAD" or "INVALID_ARGUMENT" == json.loads(body)["code"]
    assert [] == gateway.calls


@pytest.mark.parametrize("target", ["/v1/sentiment/", "//v1/sentiment", "/v1/Sentiment", "/v1", "/v1/sentiment/x"])
async def test_other_paths_are_not_found(client, gateway, target) -> None:
    """404: a path is a task's exactly, or it is none."""
    await client.send(_post("a", target=target))

    assert 404 == (await client.answer())[0]
    assert [] == gateway.calls


@pytest.mark.parametrize("target", ["/v1/sentiment?pretty=1", "/v1/sentiment?", "/v1/%73entiment"])
async def test_queries_and_escapes_change_nothing(client, target) -> None:
    """A query is ignored, and an escaped letter is that letter."""
    await client.send(_post("a", target=target))

    assert "a" == await client.label()


async def test_a_chunked_body_is_put_together(client) -> None:
    """Wherever it is cut, with extensions and trailers; the connection goes on behind it."""
    head = b"POST /v1/sentiment HTTP/1.1\r\nHost: c\r\nTransfer-Encoding: chunked\r\n\r\n"
    await client.send(head + b'4\r\n{"in\r\n')
    await client.send(b'6;x=y\r\nputs":\r\n5\r\n "a"}\r\n0\r\nTrailer: x\r\n\r\n')
    await client.send(_post("next"))

    assert ["a", "next"] == [await client.label(), await client.label()]


async def test_a_client_that_asks_first_is_told_to_go_on(client) -> None:
    """`Expect: 100-continue` is answered before the body is sent, and the body after it."""
    head, body = _post("a", "Expect: 100-continue").split(b"\r\n\r\n")
    await client.send(head + b"\r\n\r\n")
    assert 100 == (await client.answer())[0]
    await client.send(body)

    assert "a" == await client.label()


@pytest.mark.parametrize("asked", ["h2c", "websocket", "anything/2"])
@pytest.mark.parametrize("cut", ["nowhere", "in the head", "before the body", "in the body"])
async def test_a_wish_for_another_protocol_is_ignored(client, asked, cut) -> None:
    """A task that comes with `Upgrade` is answered in HTTP/1.1, and its body is a body wherever it is cut."""
    raw = _post("a", f"Upgrade: {asked}", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABk")
    place = {"nowhere": 0, "in the head": 20, "before the body": raw.index(b"{"), "in the body": len(raw) - 3}[cut]
    await client.send(raw[:place])
    await asyncio.sleep(0.01)
    await client.send(raw[place:] + _post("next"))

    assert ["a", "next"] == [await client.label(), await client.label()]


async def test_the_first_of_two_equal_headers_counts(client, gateway) -> None:
    """As it does in the framework that answers the other routes."""
    await client.send(_post("a", "X-Request-Id: first", "X-Request-Id: second"))
    _, headers, _ = await client.answer()

    assert ["first"] == [value for name, value in headers if name == "x-request-id"]
    assert "first" == gateway.calls[0].request_id


@pytest.mark.parametrize("size", [1, 1000, 300_000])
async def test_a_client_that_leaves_cancels_what_it_asked_last(client, gateway, counted, size) -> None:
    """Also behind requests that were answered on the same connection, and behind a body that came in many pieces."""
    await client.send(_post("before"))
    await client.label()
    await client.send(
        _post("wait")
        .replace(b'"wait"', b'["wait","' + b"x" * size + b'"]')
        .replace(b"Length: 18", b"Length: %d" % (18 + 5 + size))
    )
    await gateway.waiting.wait()
    client.close()
    async with asyncio.timeout(60):
        await gateway.cancelled.wait()
    await counted(code="CANCELLED")

    assert 2 == len(gateway.calls)


async def test_an_answer_is_out_before_the_next_request_is_begun(client, gateway) -> None:
    """A request that waits holds up those behind it on its connection, and no others."""
    await client.send(_post("wait") + _post("behind"))
    await gateway.waiting.wait()
    assert ["wait"] == [asked["inputs"][0] for asked in gateway.asked]
    gateway.released.set()

    assert ["wait", "behind"] == [await client.label(), await client.label()]


@pytest.mark.parametrize(("refusal", "expected"), [(None, 200), (Unavailable("the server is shutting down"), 503)])
async def test_while_draining_a_connection_is_closed_once(client, gateway, lifecycle, refusal, expected) -> None:
    """Answer or refusal says so in one header, and the connection ends behind it."""
    lifecycle.set(Phase.DRAINING)
    gateway.error = refusal
    await client.send(_post("a"))
    status, headers, _ = await client.answer()

    assert expected == status
    assert ["close"] == [value for name, value in headers if name == "connection"]
    assert b"" == await client.reader.read()


@pytest.mark.parametrize("headers", [(), ("Connection: close",)])
async def test_a_connection_that_is_closed_is_freed_at_once(listening_socket, headers) -> None:
    """It does not wait for the collector, which comes rarely."""

    def connections() -> int:
        return sum(type(found) is Connection for found in gc.get_objects())

    gc.collect()
    before = connections()
    gc.disable()
    try:
        client = await _Client.connect(listening_socket)
        await client.send(_post("a", *headers))
        assert "a" == await client.label()
        client.close()
        async with asyncio.timeout(60):
            while connections() > before:  # noqa: ASYNC110  nothing announces it
                await asyncio.sleep(0.01)
    finally:
        gc.enable()


@pytest.mark.parametrize("together", [1, 2])
async def test_a_connection_that_asks_no_more_is_closed(client, server, together) -> None:
    """After the time that a connection may be idle, however many requests came together before."""
    await client.send(_post("first"))
    await client.label()
    (connection,) = server._server.server_state.connections
    connection.timeout_keep_alive = 1.5
    for _ in range(2):
        await client.send(_post("a") * together)
        for _ in range(together):
            await client.label()
        await asyncio.sleep(0.3)

    async with asyncio.timeout(30):
        assert b"" == await client.reader.read()


async def test_a_short_request_ends_at_its_deadline_also_where_it_waits_for_a_thread(
    client, gateway, monkeypatch
) -> None:
    """Threads may be busy with large requests of others."""
    gateway.is_small = False
    free = threading.Event()

    async def in_thread(*_: object) -> None:
        await asyncio.to_thread(free.wait, 60)

    monkeypatch.setattr(type(gateway), "sentiment", question(in_thread))
    await client.send(_post("a", "X-Request-Timeout: 0.2"))
    status, _, body = await client.answer()
    free.set()

    assert (504, "DEADLINE_EXCEEDED") == (status, json.loads(body)["code"])
