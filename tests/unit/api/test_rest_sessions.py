"""Sessions over HTTP and WebSocket, before an engine that remembers what it was given."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, MutableMapping

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from conveyor.api.rest.app import create_app
from conveyor.api.rest.door import Door
from conveyor.api.rest.server import HttpServer
from conveyor.api.rest.session_socket import SessionSockets
from conveyor.gateway.call import Call
from conveyor.lifecycle.phase import Lifecycle, Phase
from support.session_gateway import RememberingEngine, until

pytestmark = pytest.mark.anyio

NOBODY = "forecast-electricity.1." + "0" * 32


@pytest.fixture
async def client(server, listening_socket) -> AsyncIterator[httpx.AsyncClient]:
    """Of the server."""
    host, port = listening_socket.getsockname()
    async with httpx.AsyncClient(base_url=f"http://{host}:{port}", trust_env=False) as client:
        yield client


@pytest.fixture
async def session(client) -> str:
    """With two steps."""
    answer = await client.post("/v1/sessions", json={"model": "forecast-electricity", "values": [1, None]})
    assert {"session", "model", "version", "steps", "expires_in"} == set(answer.json())
    return str(answer.json()["session"])


def socket(client: httpx.AsyncClient, session: str) -> connect:
    """A WebSocket of a session."""
    url = str(client.base_url).replace("http", "ws", 1)
    return connect(f"{url}/v1/sessions/{session}/stream", proxy=None, additional_headers={"X-Request-Id": "mine"})


async def closing(stream: ClientConnection) -> int:
    """The code with which the server closes."""
    await stream.wait_closed()
    assert stream.close_code is not None
    return stream.close_code


async def test_a_session_over_http(client, session) -> None:
    """Each call of the table answers as it says."""
    path = f"/v1/sessions/{session}"
    told = {"session": session, "model": "forecast-electricity", "version": "1", "steps": 2, "expires_in": 3600.0}
    assert told == (await client.get(path)).json()
    appended = (await client.post(f"{path}/append", json={"values": [[3], [4]], "expected_steps": 2})).json()
    assert {"session": session, "steps": 4, "expires_in": 3600.0} == appended
    forecast = (await client.post(f"{path}/append", json={"values": [], "horizon": 1, "quantiles": [0.5]})).json()
    assert {"mean": [[4.0]], "quantiles": {"0.5": [[4.0]]}, "targets": ["demand"]} == forecast["result"]
    fork = (await client.post(f"{path}/fork")).json()
    assert told | {"session": fork["session"], "steps": 4} == fork
    state = await client.get(f"{path}/state")
    assert "application/octet-stream" == state.headers["content-type"]
    assert 4 == (await client.put(f"/v1/sessions/{fork['session']}/state", content=state.content)).json()["steps"]
    assert {"session": session, "steps": 4} == (await client.delete(path)).json()
    assert 404 == (await client.get(path)).status_code


REFUSALS = {
    "expected steps": ("POST", "{}/append", {"values": [1], "expected_steps": 3}, 409, "ABORTED", None),
    "unknown field": ("POST", "{}/append", {"values": [1], "id": 3}, 400, "INVALID_ARGUMENT", "id"),
    "a text": ("POST", "{}/append", {"values": [1, "2"]}, 400, "INVALID_ARGUMENT", "values[1]"),
    "no values": ("POST", "{}/append", {"horizon": 1}, 400, "INVALID_ARGUMENT", "values"),
    "width": ("POST", "{}/append", {"values": [[1, 2]]}, 400, "INVALID_ARGUMENT", "values"),
    "horizon": ("POST", "{}/append", {"values": [1], "horizon": 7}, 400, "INVALID_ARGUMENT", "horizon"),
    "nobody": ("POST", f"{NOBODY}/append", {"values": [1]}, 404, "NOT_FOUND", None),
    "no id": ("POST", "mine/fork", None, 404, "NOT_FOUND", None),
    "state": ("PUT", "{}/state", {"not": "a state"}, 400, "INVALID_ARGUMENT", None),
    "items": ("POST", "append", {"items": []}, 400, "INVALID_ARGUMENT", "items"),
    "item": ("POST", "append", {"items": [{"session": 3, "values": [1]}]}, 400, "INVALID_ARGUMENT", "items[0].session"),
    "method": ("PATCH", "{}", None, 405, "INVALID_ARGUMENT", None),
    "path": ("GET", "{}/", None, 404, "NOT_FOUND", None),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_http_names_what_is_wrong(client, session, name: str) -> None:
    """With the status, the code and the field, and the caller's request id."""
    method, path, body, status, code, field = REFUSALS[name]
    answer = await client.request(
        method, f"/v1/sessions/{path.replace('{}', session)}", json=body, headers={"X-Request-Id": "mine"}
    )

    error = answer.json()
    assert (status, code, field) == (answer.status_code, error["code"], error.get("field")), error
    assert "mine" == answer.headers["x-request-id"]


async def test_an_opening_is_refused_by_field(client) -> None:
    """What a forecast would be refused for, an opening is."""
    for body, status, field in [
        ({}, 400, "model"),
        ({"model": "forecast-electricity", "version": "1"}, 400, "version"),
        ({"model": "forecast-electricity", "start": "soon"}, 400, "start"),
        ({"model": "forecast-electricity", "frequency": "D"}, 400, "frequency"),
        ({"model": "nobody"}, 404, None),
    ]:
        answer = await client.post("/v1/sessions", json=body)
        assert (status, field) == (answer.status_code, answer.json().get("field"))


async def test_items_fail_alone_and_keep_their_order(client, session) -> None:
    """Also those whose values are no numbers; whichever way the body is read."""
    items = [
        {"session": session, "values": [3]},
        {"session": NOBODY, "values": [3]},
        {"session": session, "values": [3], "expected_steps": 0},
        {"session": session, "values": [[4], [5]]},
        {"session": session, "values": ["x"]},
    ]
    plain = (await client.post("/v1/sessions/append", json={"items": items[:3]})).json()["items"]
    mixed = (await client.post("/v1/sessions/append", json={"items": items, "horizon": 1})).json()["items"]

    assert [3, "NOT_FOUND", "ABORTED"] == [item.get("steps", item.get("code")) for item in plain]
    assert [4, "NOT_FOUND", "ABORTED", 6, "INVALID_ARGUMENT"] == [item.get("steps", item.get("code")) for item in mixed]
    assert [{"session", "steps"}] + [{"session", "error", "code"}] * 2 == [set(item) for item in plain]
    assert [[3.0]] == mixed[0]["result"]["mean"]
    assert [[5.0]] == mixed[3]["result"]["mean"]


async def test_a_socket_answers_each_message_in_order(client, session) -> None:
    """With the message's id if it has one; an error is of its message alone."""
    messages: list[tuple[str, dict[str, object]]] = [
        ('{"values": [1]}', {"session": session, "steps": 3, "expires_in": 3600.0}),
        ('{"values": [[2]], "id": "a"}', {"id": "a", "session": session, "steps": 4, "expires_in": 3600.0}),
        ('{"values": ["x"], "id": 7}', {"id": 7, "code": "INVALID_ARGUMENT", "field": "values[0]"}),
        ('{"values": [1], "colour": 1, "id": "b"}', {"id": "b", "code": "INVALID_ARGUMENT", "field": "colour"}),
        ('{"values": [1], "expected_steps": 0, "id": "c"}', {"id": "c", "code": "ABORTED"}),
        ('{"values": [1], "id": true}', {"code": "INVALID_ARGUMENT", "field": "id"}),
        ("[]", {"code": "INVALID_ARGUMENT"}),
        ('{"values": [], "id": "d"}', {"id": "d", "session": session, "steps": 4, "expires_in": 3600.0}),
    ]
    async with socket(client, session) as stream:
        assert stream.response is not None
        assert "mine" == stream.response.headers["x-request-id"]
        for text, _ in messages:
            await stream.send(text)
        answers = [json.loads(await stream.recv()) for _ in messages]
    assert [expected for _, expected in messages] == [
        {name: value for name, value in answer.items() if name != "error"} for answer in answers
    ]
    assert 4 == (await client.get(f"/v1/sessions/{session}")).json()["steps"]


async def test_a_socket_reads_no_further_while_too_much_is_unanswered(
    client, session, engine: RememberingEngine
) -> None:
    """What is beyond waits in the connection, and every message is answered in the end."""
    async with socket(client, session) as stream:
        await stream.send('{"values": []}')
        await stream.recv()
        engine.blocks.clear()
        engine.held = True
        for number in range(200):
            await stream.send(json.dumps({"values": [number], "id": number}))
        await until(lambda: sum(len(block.ids) for block in engine.blocks) >= 64)
        await asyncio.sleep(0.05)
        held, engine.held = list(engine.blocks), False
        assert 64 == sum(len(block.ids) for block in held)
        for block in held:
            engine.answer(block)
        assert list(range(200)) == [json.loads(await stream.recv())["id"] for _ in range(200)]


async def test_a_socket_is_refused_or_sent_away(client, session, lifecycle: Lifecycle, engine) -> None:
    """1008 for nobody's session, 404 elsewhere; on drain what was read is answered, then 1001."""
    async with socket(client, NOBODY) as stream:
        assert "NOT_FOUND" == json.loads(await stream.recv())["code"]
        assert 1008 == await closing(stream)
    with pytest.raises(InvalidStatus) as raised:
        async with connect(str(client.base_url).replace("http", "ws", 1) + "/v1/nothing", proxy=None):
            pass
    assert 404 == raised.value.response.status_code
    async with socket(client, session) as stream:
        engine.held = True
        sent = len(engine.blocks)
        await stream.send('{"values": [3], "id": "last"}')
        await until(lambda: len(engine.blocks) > sent)
        lifecycle.set(Phase.DRAINING)
        engine.answer(engine.blocks[-1])
        assert ("last", 3) == (lambda answer: (answer["id"], answer["steps"]))(json.loads(await stream.recv()))
        assert 1001 == await closing(stream)


async def test_a_socket_beyond_the_number_of_connections_is_sent_away(
    gateway, lifecycle, metrics, limits, listening_socket
) -> None:
    """With 1013, which says that it may come again."""
    app = create_app(gateway, lifecycle, metrics, limits, metrics.scrape)
    server = HttpServer(app, listening_socket, max_connections=1)
    await server.start()
    host, port = listening_socket.getsockname()
    _, idle = await asyncio.open_connection(host, port)
    async with connect(f"ws://{host}:{port}/v1/sessions/{NOBODY}/stream", proxy=None) as stream:
        assert 1013 == await closing(stream)
    idle.close()
    await server.stop(0)


async def test_a_client_that_vanishes_leaves_its_session(client, session) -> None:
    """What was read is applied, and the session goes on."""
    async with socket(client, session) as stream:
        await stream.send('{"values": [1]}')
        await stream.recv()
        stream.transport.abort()
    assert 4 == (await client.post(f"/v1/sessions/{session}/append", json={"values": [2]})).json()["steps"]


async def test_a_socket_that_was_closed_beneath_is_served_to_its_end(
    gateway, metrics, limits, lifecycle, session
) -> None:
    """What was read is applied, though no answer can be sent, and nothing stays behind."""
    messages = ["websocket.connect", *["websocket.receive"] * 100, "websocket.disconnect"]

    async def receive() -> dict[str, object]:
        return {"type": messages.pop(0), "text": '{"values": [1]}'}

    async def send(message: MutableMapping[str, object]) -> None:
        if message["type"] != "websocket.accept":
            raise RuntimeError("Unexpected ASGI message, after sending 'websocket.close'.")

    async with asyncio.timeout(10):
        scope = {"headers": [], "path": f"/v1/sessions/{session}/stream"}
        await SessionSockets(gateway, Door.of(metrics, limits), lifecycle)(scope, receive, send)
    told = await gateway.sessions.tell(Call("forecast", "test", "id", math.inf), session)
    assert 102 == told.steps


async def test_messages_are_counted_as_requests(client, session, request_count) -> None:
    """By their own outcomes, as of the protocol `ws`."""
    async with socket(client, session) as stream:
        for text in ('{"values": [1]}', '{"values": [1], "expected_steps": 0}', "{}"):
            await stream.send(text)
            await stream.recv()

    assert [1, 1, 1] == [request_count(protocol="ws", code=code) for code in ("OK", "ABORTED", "INVALID_ARGUMENT")]
    assert 1 == request_count(protocol="http", task="forecast", model="forecast-electricity", code="OK")
