"""The HTTP server on real sockets."""

from __future__ import annotations

import asyncio
import json
import signal
import socket

import httpx
import pytest

from conveyor.api.rest.app import create_app
from conveyor.api.rest.server import HttpServer

pytestmark = pytest.mark.anyio


@pytest.fixture
def url(listening_socket: socket.socket) -> str:
    """Where the server listens."""
    return f"http://127.0.0.1:{listening_socket.getsockname()[1]}"


async def _raw(sock: socket.socket, request: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(*sock.getsockname())
    writer.write(request)
    await writer.drain()
    return reader, writer


async def _refuses_connections(url: str) -> None:
    while True:
        try:
            async with httpx.AsyncClient(base_url=url) as client:
                await client.get("/health/live")
        except httpx.TransportError:
            return


def _post(body: bytes, *headers: str) -> bytes:
    head = ["POST /v1/sentiment HTTP/1.1", "Host: conveyor", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*head, "", ""]).encode() + body


@pytest.mark.usefixtures("server")
async def test_it_answers(url: str) -> None:
    """A request over a socket is answered, on the same connection again and again."""
    async with httpx.AsyncClient(base_url=url) as client:
        labels = [
            (await client.post("/v1/sentiment", json={"inputs": text})).json()["results"][0]["label"]
            for text in ("one", "two")
        ]

    assert ["one", "two"] == labels


async def test_signals_stay_with_their_owner(gateway, lifecycle, metrics, limits, listening_socket) -> None:
    """Serving sets no signal handler, neither while it runs nor after."""
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in signals]
    server = HttpServer(create_app(gateway, lifecycle, metrics, limits, metrics.scrape), listening_socket)
    await server.start()
    while_serving = [signal.getsignal(number) for number in signals]
    await server.stop(0)

    assert before == while_serving
    assert before == [signal.getsignal(number) for number in signals]


async def test_requests_in_flight_finish_when_it_stops(
    gateway, lifecycle, metrics, limits, listening_socket, url
) -> None:
    """Stopping answers what was accepted and takes nothing new."""
    server = HttpServer(create_app(gateway, lifecycle, metrics, limits, metrics.scrape), listening_socket)
    await server.start()
    async with httpx.AsyncClient(base_url=url) as client:
        request = asyncio.create_task(client.post("/v1/sentiment", json={"inputs": "wait"}))
        await gateway.waiting.wait()
        stopping = asyncio.create_task(server.stop(30))
        await _refuses_connections(url)
        gateway.released.set()
        answer = await request
        await stopping

    assert (200, "wait") == (answer.status_code, answer.json()["results"][0]["label"])


async def test_requests_beyond_the_grace_are_told_so(
    gateway, lifecycle, metrics, limits, listening_socket, request_count
) -> None:
    """What is not answered in time does not keep the server from stopping, and gets 503 in the one error body."""
    server = HttpServer(create_app(gateway, lifecycle, metrics, limits, metrics.scrape), listening_socket)
    await server.start()
    reader, writer = await _raw(listening_socket, _post(b'{"inputs": "wait"}', "X-Request-Id: last"))
    await gateway.waiting.wait()
    await server.stop(0)
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()

    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nx-request-id: last" in head.lower()
    assert "UNAVAILABLE" == json.loads(body)["code"]
    assert gateway.cancelled.is_set()
    assert 1 == request_count(task="sentiment", code="UNAVAILABLE")


@pytest.mark.usefixtures("server")
async def test_a_client_that_leaves_cancels_its_request(gateway, listening_socket, request_count, counted) -> None:
    """Closing the connection cancels the work, and the request is counted as cancelled."""
    _, writer = await _raw(listening_socket, _post(b'{"inputs": "wait"}'))
    await gateway.waiting.wait()
    writer.close()
    await gateway.cancelled.wait()
    await counted(code="CANCELLED")

    assert 1 == request_count(task="sentiment", code="CANCELLED")


@pytest.mark.usefixtures("server")
async def test_a_client_that_leaves_halfway_through_its_body_is_counted(
    gateway, listening_socket, request_count, counted
) -> None:
    """A body that never ends is a cancelled request."""
    _, writer = await _raw(listening_socket, _post(b'{"inputs": "wait"}').replace(b"Length: 18", b"Length: 99"))
    writer.close()
    await counted(code="CANCELLED")

    assert [] == gateway.calls


@pytest.mark.usefixtures("server")
async def test_a_body_that_is_too_large_is_refused_before_it_is_sent(listening_socket) -> None:
    """The answer comes on the headers alone, and the connection is closed."""
    request = b"POST /v1/tag HTTP/1.1\r\nHost: c\r\nExpect: 100-continue\r\nContent-Length: 99999999\r\n\r\n"
    reader, writer = await _raw(listening_socket, request)
    answer = await reader.read()
    writer.close()

    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413 ")
    assert b"\r\nconnection: close" in head.lower()
    assert "RESOURCE_EXHAUSTED" == json.loads(body)["code"]


@pytest.mark.usefixtures("server")
async def test_a_chunked_body_is_cut_off_at_the_limit(listening_socket) -> None:
    """Without a declared length the limit holds as well."""
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    head = b"POST /v1/tag HTTP/1.1\r\nHost: c\r\nTransfer-Encoding: chunked\r\n\r\n"
    reader, writer = await _raw(listening_socket, head + 5 * chunk)
    status = await reader.readline()
    writer.close()

    assert status.startswith(b"HTTP/1.1 413 ")


async def test_a_socket_that_cannot_listen_fails_the_start(gateway, lifecycle, metrics, limits) -> None:
    """The reason reaches the caller instead of a server that hears nothing."""
    with socket.socket() as closed:
        closed.close()
        server = HttpServer(create_app(gateway, lifecycle, metrics, limits, metrics.scrape), closed)
        with pytest.raises(OSError, match="Bad file descriptor"):
            await server.start()
