"""What the HTTP door does about callers that send too much, too slowly, or not HTTP at all."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest

from conveyor.api.offload import Offload
from conveyor.api.rest import door, protocol
from conveyor.api.rest.app import create_app
from conveyor.api.rest.server import HttpServer
from conveyor.api.rest.service import create_metrics_app
from conveyor.errors import NotFound, QueueFull
from conveyor.gateway.limits import Limits

pytestmark = pytest.mark.anyio


@pytest.fixture
def limits() -> Limits:
    """A body of 1 MiB, three items, a series of ten values, a minute."""
    return Limits(body_bytes=2**20, items=3, series_values=10, request_timeout_s=60.0)


@pytest.fixture
async def client(gateway, lifecycle, metrics, limits) -> AsyncIterator[httpx.AsyncClient]:
    """Speaks to the application without a socket."""
    transport = httpx.ASGITransport(create_app(gateway, lifecycle, metrics, limits, metrics.scrape))
    async with httpx.AsyncClient(transport=transport, base_url="http://conveyor") as client:
        yield client


async def _raw(sock: socket.socket, request: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(*sock.getsockname())
    writer.write(request)
    await writer.drain()
    return reader, writer


async def _answer(sock: socket.socket, request: bytes) -> tuple[bytes, dict[str, str]]:
    """Sends a request whose answer closes the connection; returns its head in small letters, and its body."""
    reader, writer = await _raw(sock, request)
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return head.lower(), json.loads(body)


@pytest.mark.parametrize(
    ("path", "body", "field", "said"),
    [
        ("sentiment", {"inputs": ["a"] * 4}, "inputs", "has 4 items; at most 3"),
        ("sentiment", {"inputs": [1] * 4}, "inputs", "has 4 items; at most 3"),
        ("tag", {"inputs": [[]] * 4}, "inputs", "has 4 items; at most 3"),
        ("forecast", {"series": [{"values": [1]}] * 4}, "series", "has 4 items; at most 3"),
        ("forecast", {"series": [{"values": [1] * 11}]}, "series[0].values", "has 11 values; at most 10"),
        ("forecast", {"series": [{"values": ["x"] * 11}]}, "series[0].values", "has 11 values; at most 10"),
        ("forecast", {"series": [{"values": [[1, 2]] * 6}]}, "series[0].values", "has 12 values; at most 10"),
        ("forecast", {"series": [{"values": [[]] * 11}]}, "series[0].values", "has 11 values; at most 10"),
    ],
)
async def test_counts_are_checked_before_what_is_counted(client, gateway, path, body, field, said) -> None:
    """A list that is too long is refused for its length, whatever is in it, and nothing reaches the gateway."""
    answer = await client.post(f"/v1/{path}", json=body)

    assert (400, field) == (answer.status_code, answer.json().get("field"))
    assert said in answer.json()["error"]
    assert [] == gateway.calls


async def test_a_body_too_large_for_the_loop_is_read_the_same(client, gateway) -> None:
    """Bodies that are parsed in a thread, and answers that are written in one, are those of small ones."""
    texts = ["good " * 20_000, "", "bad " * 30_000]
    answer = await client.post("/v1/sentiment", json={"inputs": texts})
    wrong = await client.post("/v1/sentiment", content=json.dumps({"inputs": [*texts[:2], 5]}))

    assert texts == [result["label"] for result in answer.json()["results"]]
    assert (400, "inputs[2]") == (wrong.status_code, wrong.json()["field"])


async def test_large_answers_are_written_as_small_ones(gateway, lifecycle, metrics) -> None:
    """A forecast of many values comes back in full."""
    transport = httpx.ASGITransport(create_app(gateway, lifecycle, metrics, Limits(), metrics.scrape))
    values = [[index / 7] for index in range(6000)]
    async with httpx.AsyncClient(transport=transport, base_url="http://conveyor") as client:
        answer = await client.post("/v1/forecast", json={"series": [{"values": values}, {"values": [1.5]}]})

    assert [values, [[1.5]]] == [result["mean"] for result in answer.json()["results"]]
    assert {"mean", "quantiles", "targets"} == set(answer.json()["results"][0])


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        ({"inputs": "a", "model": "", "version": ""}, {"model": "", "version": ""}),
        ({"inputs": "a", "model": None}, {"model": None, "version": None}),
    ],
)
async def test_an_empty_name_is_a_name(client, gateway, body, asked) -> None:
    """The gateway gets what was sent, and knows no model of that name."""
    await client.post("/v1/sentiment", json=body)

    assert asked.items() <= gateway.asked[0].items()


async def test_an_empty_start_is_no_time_and_an_empty_frequency_is_passed_on(client, gateway) -> None:
    """Only null and leaving it out mean "not given"."""
    start = await client.post("/v1/forecast", json={"series": [{"values": [1], "start": ""}]})
    await client.post("/v1/forecast", json={"series": [{"values": [1], "frequency": ""}]})

    assert (400, "series[0].start") == (start.status_code, start.json()["field"])
    (series,) = gateway.asked[0]["series"]
    assert "" == series.frequency


async def test_messages_are_cut_short(client, gateway) -> None:
    """An error of any length is answered in at most 1 KiB, cut between code points."""
    gateway.error = NotFound("there is no model " + "好" * 20_000)
    answer = await client.post("/v1/sentiment", json={"inputs": "a"})

    message = answer.json()["error"]
    assert message.endswith("好…")
    assert 1020 <= len(message.encode()) <= 1024


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("sent", [b"", b'{"inputs": '])
async def test_a_body_that_stalls_ends_with_the_deadline(listening_socket, gateway, request_count, sent) -> None:
    """504, though the request was never complete."""
    head = b"POST /v1/sentiment HTTP/1.1\r\nHost: c\r\nContent-Length: 99\r\nX-Request-Timeout: 0.02\r\n\r\n"
    reader, writer = await _raw(listening_socket, head + sent)
    status = await reader.readline()
    writer.close()

    assert status.startswith(b"HTTP/1.1 504 ")
    assert [] == gateway.calls
    assert 1 == request_count(code="DEADLINE_EXCEEDED")


async def test_without_a_deadline_the_servers_bounds_the_body_too(
    gateway, lifecycle, metrics, limits, listening_socket
):
    """A caller that names no time still gets no more than the server's."""
    app = create_app(gateway, lifecycle, metrics, replace(limits, request_timeout_s=0.02), metrics.scrape)
    server = HttpServer(app, listening_socket)
    await server.start()
    reader, writer = await _raw(listening_socket, b"POST /v1/tag HTTP/1.1\r\nHost: c\r\nContent-Length: 9\r\n\r\n")
    status = await reader.readline()
    writer.close()
    await server.stop(0)

    assert status.startswith(b"HTTP/1.1 504 ")


async def test_a_very_long_timeout_is_accepted(client) -> None:
    """More than any timer takes is as good as the longest one."""
    answer = await client.post("/v1/sentiment", json={"inputs": "a"}, headers={"X-Request-Timeout": "1e300"})

    assert 200 == answer.status_code


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(("path", "status"), [("/v1/sentiment", 413), ("/nowhere", 404)])
async def test_a_client_that_sends_everything_first_reads_the_refusal(listening_socket, path, status) -> None:
    """The connection is not reset below a client that has not read its answer yet."""

    def post() -> tuple[int, str]:
        connection = http.client.HTTPConnection(*listening_socket.getsockname(), timeout=30)
        connection.request("POST", path, body=b" " * 9_600_000, headers={"Connection": "close"})
        answer = connection.getresponse()
        body = json.loads(answer.read())
        connection.close()
        return answer.status, body["code"]

    for _ in range(5):
        assert status == (await asyncio.to_thread(post))[0]


@pytest.mark.usefixtures("server")
async def test_what_is_not_http_is_answered_in_the_same_form(listening_socket) -> None:
    """400 with the error body, a request id, and the end of the connection."""
    head, body = await _answer(listening_socket, b"\x16\x03\x01 hello\r\n\r\n")

    assert head.startswith(b"http/1.1 400 ")
    assert b"\r\nx-request-id: " in head
    assert b"\r\nconnection: close" in head
    assert "INVALID_ARGUMENT" == body["code"]


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /health/live HTTP/1.1\r\nHost: c\r\n\r\n",
        b'POST /v1/sentiment HTTP/1.1\r\nHost: c\r\nContent-Length: 15\r\n\r\n{"inputs": "a"}',
    ],
    ids=["through ASGI", "on the short path"],
)
async def test_connections_beyond_the_limit_are_refused(
    gateway, lifecycle, metrics, limits, listening_socket, request_bytes
) -> None:
    """429 in the one error body, also where the same request was answered before; those that were there first go on."""
    server = HttpServer(
        create_app(gateway, lifecycle, metrics, limits, metrics.scrape), listening_socket, max_connections=1
    )
    await server.start()
    reader, writer = await _raw(listening_socket, request_bytes)
    assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    head, body = await _answer(listening_socket, request_bytes)
    writer.write(request_bytes)
    rest = await reader.readuntil(b"HTTP/1.1 200 ")
    writer.close()
    await server.stop(0)

    assert head.startswith(b"http/1.1 429 ")
    assert b"\r\nretry-after: 1" in head
    assert b"\r\nx-request-id: " in head
    assert "RESOURCE_EXHAUSTED" == body["code"]
    assert rest


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    ("before", "begun"),
    [(b"", b""), (b"", b"GET /health/live HT"), (b"GET /health/live HTTP/1.1\r\nHost: c\r\n\r\n", b"GET /health/li")],
)
async def test_a_head_that_stalls_is_cut_off(listening_socket, monkeypatch, before, begun) -> None:
    """A connection on which no request comes to be is closed, its first as its later ones."""
    monkeypatch.setattr(protocol, "_HEAD_TIMEOUT_S", 0.05)
    reader, writer = await _raw(listening_socket, before)
    if before:
        await reader.readuntil(b'"live"}')
    writer.write(begun)

    assert b"" == await reader.read()
    writer.close()


async def test_a_client_that_never_reads_is_cut_off(gateway, lifecycle, metrics, listening_socket, monkeypatch) -> None:
    """An answer that nobody takes does not keep its connection for ever."""
    monkeypatch.setattr(protocol, "_WRITE_TIMEOUT_S", 0.05)
    server = HttpServer(create_app(gateway, lifecycle, metrics, Limits(), metrics.scrape), listening_socket)
    await server.start()
    body = json.dumps({"inputs": ["x" * 8_000_000]}).encode()
    reader, writer = await _raw(
        listening_socket, b"POST /v1/sentiment HTTP/1.1\r\nHost: c\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    )
    await server.stop(30)  # returns once the connection is gone

    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await reader.readexactly(3 * 8_000_000)
    writer.close()


@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
async def test_health_answers_head(client, path) -> None:
    """As some load balancers ask; other methods are still refused."""
    assert (200, b"") == ((head := await client.head(path)).status_code, head.content)
    assert 405 == (await client.post(path)).status_code


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/", 404), ("POST", "/metrics", 405)])
async def test_the_metrics_port_refuses_in_the_same_form(metrics, method, path, status) -> None:
    """The error body and the request id, and the id on its answers too."""
    transport = httpx.ASGITransport(create_metrics_app(metrics.scrape))
    async with httpx.AsyncClient(transport=transport, base_url="http://conveyor") as client:
        refused = await client.request(method, path, headers={"X-Request-Id": "mine"})
        scraped = await client.get("/metrics")

    assert (status, {"error", "code"}, "mine") == (
        refused.status_code,
        set(refused.json()),
        refused.headers["x-request-id"],
    )
    assert scraped.headers["x-request-id"]


async def test_answers_have_titles_of_their_own(client) -> None:
    """Generators name their classes by them."""
    schemas = (await client.get("/openapi.json")).json()["components"]["schemas"]
    titles = [schema["title"] for schema in schemas.values() if "title" in schema]

    assert {"SentimentAnswer", "TagAnswer", "ForecastAnswer"} <= set(titles)
    assert sorted(set(titles)) == sorted(titles)


async def test_a_body_that_was_read_holds_no_room(gateway, lifecycle, metrics, limits, monkeypatch) -> None:
    """Only what is being received counts against the room for it, not what waits for its answer."""
    monkeypatch.setattr(door, "_BODIES_RECEIVED", 1)
    transport = httpx.ASGITransport(create_app(gateway, lifecycle, metrics, limits, metrics.scrape))
    large = "x" * 600_000
    async with httpx.AsyncClient(transport=transport, base_url="http://conveyor") as client:
        waiting = asyncio.create_task(client.post("/v1/sentiment", json={"inputs": ["wait", large]}))
        await gateway.waiting.wait()
        assert 200 == (await client.post("/v1/sentiment", json={"inputs": large})).status_code
        gateway.released.set()
        assert 200 == (await waiting).status_code


async def test_bytes_that_are_read_at_once_are_bounded() -> None:
    """Beyond the bound reading is refused, and has room again once a thread is done, not once its caller is gone."""
    offload = Offload(100_000)
    going, finish = threading.Event(), threading.Event()

    def work() -> str:
        going.set()
        assert finish.wait(30)
        return "read"

    reading = asyncio.create_task(offload.read(70_000, work))
    await asyncio.to_thread(going.wait, 30)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    with pytest.raises(QueueFull):
        await offload.read(70_000, str)
    assert "" == await offload.read(100, str), "what is small is never refused"
    finish.set()
    while True:
        try:
            assert "" == await offload.read(100_000, str)
            break
        except QueueFull:
            await asyncio.sleep(0)
