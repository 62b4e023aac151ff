"""Streaming sessions on a real server, in each of its forms and through each of its doors."""

from __future__ import annotations

import json
import queue
import random
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from support.rpc import Client, pb
from support.server import ServerProcess

MODEL = "forecast-electricity"
START = "2024-03-01T00:00:00+00:00"
SERIES: list[float | None] = [None if step % 11 == 5 else 100.0 + 10.0 * (step % 7) - 0.37 * step for step in range(60)]


def opened(http: httpx.Client, values: list[float | None] | None = None, **more: object) -> str:
    """A new session."""
    answer = http.post("/v1/sessions", json={"model": MODEL, "values": values or [], "start": START} | more)
    assert 200 == answer.status_code, answer.text
    return str(answer.json()["session"])


def append(http: httpx.Client, session: str, values: list[float | None], **more: object) -> dict[str, Any]:
    """What an append answers."""
    answer = http.post(f"/v1/sessions/{session}/append", json={"values": values} | more)
    assert 200 == answer.status_code, answer.text
    return dict(answer.json())


def one_shot(http: httpx.Client, values: list[float | None], horizon: int) -> dict[str, Any]:
    """The forecast of a whole series."""
    body = {"series": [{"values": values, "start": START}], "horizon": horizon}
    return dict(http.post("/v1/forecast", json=body).json()["results"][0])


def alike(one: Any, other: Any) -> bool:
    """Equal but for 1e-5 of each number."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(alike(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(alike, one, other))
    return bool(one == pytest.approx(other, rel=1e-5)) if isinstance(one, float) else bool(one == other)


def socket(server: ServerProcess, session: str) -> ClientConnection:
    """A WebSocket of a session."""
    return connect(f"{server.http.replace('http', 'ws', 1)}/v1/sessions/{session}/stream", proxy=None)


@pytest.fixture
def stream(rpc: Client) -> Iterator[Stream]:
    """A gRPC stream."""
    stream = Stream(rpc)
    yield stream
    stream.close()


class Stream:
    """A `Session` stream whose messages are answered one by one."""

    def __init__(self, client: Client) -> None:
        self._queue: Any = queue.SimpleQueue()
        self._answers = client.channel.stream_stream(
            "/conveyor.v1.Conveyor/Session",
            request_serializer=pb.SessionRequest.SerializeToString,
            response_deserializer=pb.SessionResponse.FromString,
        )(iter(self._queue.get, None))

    def ask(self, **request: object) -> pb.SessionResponse:
        """The answer to one message."""
        self._queue.put(pb.SessionRequest(**request))  # type: ignore[arg-type]
        answer: pb.SessionResponse = next(self._answers)
        return answer

    def close(self) -> None:
        """Sends no more."""
        self._queue.put(None)


def test_any_cut_of_a_series_forecasts_as_the_whole(http: httpx.Client) -> None:
    """To 1e-5: history, single steps, chunks, empty appends; the times go on from the start."""
    chance = random.Random(5)
    whole = one_shot(http, SERIES, 6)
    for _ in range(4):
        cuts = sorted(chance.sample(range(1, len(SERIES)), 6))
        pieces = [SERIES[first:last] for first, last in zip([0, *cuts], [*cuts, len(SERIES)], strict=True)]
        session = opened(http, pieces[0])
        for piece in pieces[1:]:
            last = append(http, session, piece)
        assert len(SERIES) == last["steps"]
        assert alike(whole, append(http, session, [], horizon=6)["result"])


def test_every_door_advances_the_same_session(http: httpx.Client, stream: Stream, tiny_server: ServerProcess) -> None:
    """One step over each in turn, and the forecasts are those of the whole."""
    session = opened(http, SERIES[:10])
    append(http, session, SERIES[10:11])
    over_rpc = stream.ask(id="a", append=pb.AppendSession(session=session, values=SERIES[11:12], horizon=3))
    with socket(tiny_server, session) as over_ws:
        over_ws.send(json.dumps({"id": 1, "values": SERIES[12:13], "horizon": 3, "expected_steps": 12}))
        answer = json.loads(over_ws.recv())
    many = http.post(
        "/v1/sessions/append", json={"items": [{"session": session, "values": SERIES[13:14]}], "horizon": 3}
    ).json()["items"]

    assert alike(one_shot(http, SERIES[:12], 3)["mean"], [[value] for value in over_rpc.appended.result.mean.values])
    assert (1, 13) == (answer["id"], answer["steps"])
    assert alike(one_shot(http, SERIES[:13], 3), answer["result"])
    assert alike(one_shot(http, SERIES[:14], 3), many[0]["result"])


def test_a_retry_never_doubles_data(http: httpx.Client, rpc: Client) -> None:
    """An append that expects other steps is refused with 409 or ABORTED, and nothing is applied."""
    session = opened(http, [1.0, 2.0])
    assert 3 == append(http, session, [3.0], expected_steps=2)["steps"]
    again = http.post(f"/v1/sessions/{session}/append", json={"values": [3.0], "expected_steps": 2})
    assert (409, "ABORTED") == (again.status_code, again.json()["code"])
    many = rpc.call(
        "AppendSessions",
        pb.AppendSessionsRequest(items=[pb.AppendItem(session=session, values=[3], expected_steps=2)]),
    )
    assert ["ABORTED"] == [item.code for item in many.items]  # type: ignore[attr-defined]
    assert 3 == http.get(f"/v1/sessions/{session}").json()["steps"]


def test_many_sessions_advance_in_order_and_fail_alone(http: httpx.Client) -> None:
    """With 200 sessions, of which every tenth is nobody's, each has what it was given."""
    sessions = [opened(http) for _ in range(20)]
    items = [{"session": sessions[n % 20], "values": [float(n)]} for n in range(200)]
    for n in range(0, 200, 10):
        items[n]["session"] = f"{MODEL}.1.{n:032x}"
    answers = http.post("/v1/sessions/append", json={"items": items}).json()["items"]

    assert [item["session"] for item in items] == [answer["session"] for answer in answers]
    assert ["NOT_FOUND"] * 20 == [answers[n].get("code") for n in range(0, 200, 10)]
    assert list(range(1, 11)) == [answers[n]["steps"] for n in range(1, 200, 20)]


def test_branches_from_one_session_go_their_own_ways(http: httpx.Client, stream: Stream) -> None:
    """A fork begins with the state of its origin, which never changes by what the fork is told."""
    session = opened(http, SERIES[:30])
    before = append(http, session, [], horizon=4)["result"]
    fork = http.post(f"/v1/sessions/{session}/fork").json()
    assert (MODEL, "1", 30) == (fork["model"], fork["version"], fork["steps"])
    what_if = append(http, fork["session"], [500.0], horizon=4)["result"]
    other = stream.ask(id="f", fork=pb.ForkSession(session=session)).opened.session

    assert alike(one_shot(http, [*SERIES[:30], 500.0], 4), what_if)
    assert before == append(http, session, [], horizon=4)["result"] == append(http, other, [], horizon=4)["result"]


def test_a_state_moves_to_another_session(http: httpx.Client) -> None:
    """Bit for bit; an altered one is refused and changes nothing."""
    session, other = opened(http, SERIES[:40]), opened(http, [1.0])
    blob = http.get(f"/v1/sessions/{session}/state").content
    altered = bytearray(blob)
    altered[len(blob) // 2] ^= 1
    refused = http.put(f"/v1/sessions/{other}/state", content=bytes(altered))
    assert (400, "INVALID_ARGUMENT") == (refused.status_code, refused.json()["code"])
    assert 1 == http.get(f"/v1/sessions/{other}").json()["steps"]
    moved = http.put(f"/v1/sessions/{other}/state", content=blob)
    assert (other, 40) == (moved.json()["session"], moved.json()["steps"]), moved.text

    assert (
        append(http, session, SERIES[40:], horizon=5)["result"] == append(http, other, SERIES[40:], horizon=5)["result"]
    )


def test_a_session_that_was_closed_is_nobodys(http: httpx.Client, stream: Stream, tiny_server: ServerProcess) -> None:
    """404, NOT_FOUND and 1008 from then on."""
    session = opened(http, [1.0, 2.0])
    assert {"session": session, "steps": 2} == http.delete(f"/v1/sessions/{session}").json()
    answer = http.post(f"/v1/sessions/{session}/append", json={"values": [1.0]})
    assert (404, "NOT_FOUND") == (answer.status_code, answer.json()["code"])
    assert "NOT_FOUND" == stream.ask(close=pb.CloseSession(session=session)).error.code
    with socket(tiny_server, session) as over_ws:
        assert "NOT_FOUND" == json.loads(over_ws.recv())["code"]
        with pytest.raises(ConnectionClosed) as raised:
            over_ws.recv()
    assert raised.value.rcvd is not None
    assert 1008 == raised.value.rcvd.code


def test_only_a_streamable_model_has_sessions(http: httpx.Client, rpc: Client, stream: Stream) -> None:
    """The models say which they are, and the refusal says why another can't."""
    streamable = {model["name"]: model["streamable"] for model in http.get("/v1/models").json()["models"]}
    assert {MODEL: True, "sentiment-en": False, "pos-en": False, "segment-zh": False} == streamable
    listed = rpc.call("ListModels", pb.ListModelsRequest())
    assert streamable == {model.name: model.streamable for model in listed.models}  # type: ignore[attr-defined]
    refused = http.post("/v1/sessions", json={"model": "sentiment-en"})
    assert (400, "model") == (refused.status_code, refused.json()["field"])
    assert "reads backwards" in refused.json()["error"]
    assert "INVALID_ARGUMENT" == stream.ask(open=pb.OpenSession(model="pos-en")).error.code


def test_a_forecast_of_nothing_is_refused(http: httpx.Client) -> None:
    """Until the target was observed once; the session takes in what is missing all the same."""
    session = opened(http, [None])
    refused = http.post(f"/v1/sessions/{session}/append", json={"values": [None], "horizon": 1})
    assert (400, "INVALID_ARGUMENT") == (refused.status_code, refused.json()["code"])
    assert 2 == append(http, session, [None])["steps"]
    assert alike(one_shot(http, [None, None, 3.0], 2), append(http, session, [3.0], horizon=2)["result"])


def test_sessions_are_counted(http: httpx.Client, tiny_server: ServerProcess) -> None:
    """Requests by protocol; live sessions by model."""
    session = opened(http)
    with socket(tiny_server, session) as over_ws:
        over_ws.send('{"values": [1]}')
        over_ws.recv()
    page = httpx.get(tiny_server.metrics, trust_env=False, timeout=60).text
    counted = [line for line in page.splitlines() if 'protocol="ws"' in line and 'code="OK"' in line]
    assert any(
        line.startswith("conveyor_requests_total") and 'model="forecast-electricity"' in line for line in counted
    )


def test_a_stream_ends_with_its_status(rpc: Client) -> None:
    """With nothing sent it ends well, and it has a request id."""
    call = rpc.channel.stream_stream("/conveyor.v1.Conveyor/Session")(iter(()))
    assert [] == list(call)
    assert grpc.StatusCode.OK == call.code()
    assert dict(call.trailing_metadata())["x-request-id"]
