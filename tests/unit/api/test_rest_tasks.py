"""The tasks over HTTP, in process."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator

import httpx
import pytest
import structlog
from fake_gateway import SCORE, FakeGateway, leaves

from conveyor.api.rest.app import create_app
from conveyor.api.rest.errors import STATUS
from conveyor.errors import (
    Aborted,
    Cancelled,
    ConveyorError,
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    NotFound,
    PackageError,
    PayloadTooLarge,
    PermissionDenied,
    QueueFull,
    Unauthenticated,
    Unavailable,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(gateway, lifecycle, metrics, limits) -> AsyncIterator[httpx.AsyncClient]:
    """Speaks to the application without a socket."""
    transport = httpx.ASGITransport(create_app(gateway, lifecycle, metrics, limits, metrics.scrape))
    async with httpx.AsyncClient(transport=transport, base_url="http://conveyor") as client:
        yield client


async def test_sentiment_takes_one_text_or_a_list(client: httpx.AsyncClient) -> None:
    """One text is a list of one; results keep the order; numbers are not rounded."""
    one = await client.post("/v1/sentiment", json={"inputs": "fine"})
    many = await client.post("/v1/sentiment", json={"inputs": ["fine", "", "好"]})

    expected = {"label": "fine", "score": SCORE, "scores": {"fine": SCORE}}
    assert {"model": "echo", "version": "3", "results": [expected]} == one.json()
    assert ["fine", "", "好"] == [result["label"] for result in many.json()["results"]]
    assert "application/json" == one.headers["content-type"]
    assert "0.30000000000000004" in one.text


async def test_model_and_version_reach_the_gateway(client: httpx.AsyncClient, gateway: FakeGateway) -> None:
    """Both are passed on as given; null is the same as leaving them out."""
    await client.post("/v1/sentiment", json={"inputs": "a", "model": "m", "version": "7"})
    await client.post("/v1/sentiment", json={"inputs": "a", "model": None})

    assert [("m", "7"), (None, None)] == [(asked["model"], asked["version"]) for asked in gateway.asked]


@pytest.mark.parametrize(
    ("inputs", "texts", "tokens"),
    [
        ("Ada sang", ["Ada sang"], None),
        (["Ada sang", "Bo"], ["Ada sang", "Bo"], None),
        ([["Ada", "sang"], []], None, [["Ada", "sang"], []]),
        ([], [], None),
    ],
)
async def test_tag_takes_texts_or_tokens(client, gateway, inputs, texts, tokens) -> None:
    """A text, texts, and texts split into tokens are told apart by what they are."""
    answer = await client.post("/v1/tag", json={"inputs": inputs})

    assert 200 == answer.status_code
    assert (texts, tokens) == (gateway.asked[0]["inputs"], gateway.asked[0]["tokens"])


async def test_tag_answers_tokens_and_spans(client: httpx.AsyncClient) -> None:
    """Tokens and spans carry the names of the interface."""
    answer = await client.post("/v1/tag", json={"inputs": "Ada"})

    token = {"text": "Ada", "start": 0, "end": 3, "tag": "X", "score": SCORE}
    span = {"text": "Ada", "start": 0, "end": 3, "label": "L", "score": SCORE}
    assert [{"tokens": [token], "spans": [span]}] == answer.json()["results"]


async def test_forecast_takes_rows_or_plain_numbers(client: httpx.AsyncClient, gateway: FakeGateway) -> None:
    """Rows keep their features, plain numbers are one feature, null is missing; timestamps need a start."""
    answer = await client.post(
        "/v1/forecast",
        json={
            "series": [{"values": [[1, 2.5], [3, 4]], "start": "2024-01-01T00:00:00Z"}, {"values": [1.5, 2]}],
            "horizon": 2,
            "quantiles": [0.1],
        },
    )
    await client.post("/v1/forecast", json={"series": [{"values": [None, 1]}]})

    first, second = answer.json()["results"]
    assert [[1.0, 2.5], [3.0, 4.0]] == first["mean"] == first["quantiles"]["0.1"]
    assert ["2024-01-01T00:00:00+00:00"] == first["timestamps"]
    assert [[1.5], [2.0]] == second["mean"]
    assert "timestamps" not in second
    assert (2, [0.1]) == (gateway.asked[0]["horizon"], gateway.asked[0]["quantiles"])
    assert (None, None) == (gateway.asked[1]["horizon"], gateway.asked[1]["quantiles"])
    (series,) = gateway.asked[1]["series"]
    assert math.isnan(series.values[0, 0])


@pytest.mark.parametrize(
    ("path", "body", "field", "said"),
    [
        ("sentiment", "{}", "inputs", "is required"),
        ("sentiment", '{"inputs": 5}', "inputs", "a string or a list; got a number"),
        ("sentiment", '{"inputs": null}', "inputs", "a string or a list; got null"),
        ("sentiment", '{"inputs": ["a", {}]}', "inputs[1]", "must be a string; got an object"),
        ("sentiment", '{"inputs": ["a"], "modle": "x"}', "modle", "accepted are: model, version, inputs"),
        ("sentiment", '{"inputs": ["a"], "model": true}', "model", "must be a string; got true or false"),
        ("sentiment", '{"inputs": ["a"], "version": 1}', "version", "must be a string; got a number"),
        ("sentiment", '{"inputs": ["a", NaN]}', "inputs[1]", "must be a string"),
        ("sentiment", '{"inputs": 1, "model": 2}', "model", "1 more fault"),
        ("tag", '{"inputs": ["a", ["b"]]}', "inputs[1]", "must be a string; got a list"),
        ("tag", '{"inputs": [["a"], "b"]}', "inputs[1]", "must be a list; got a string"),
        ("tag", '{"inputs": [["a", 3]]}', "inputs[0][1]", "must be a string; got a number"),
        ("forecast", '{"series": {"values": [1]}}', "series", "must be a list; got an object"),
        ("forecast", '{"series": [7]}', "series[0]", "must be an object; got a number"),
        ("forecast", '{"series": [{}]}', "series[0].values", "is required"),
        ("forecast", '{"series": [{"values": 5}]}', "series[0].values", "must be a list"),
        ("forecast", '{"series": [{"values": ["1"]}]}', "series[0].values[0]", "must be a number; got a string"),
        ("forecast", '{"series": [{"values": [true]}]}', "series[0].values[0]", "must be a number"),
        ("forecast", '{"series": [{"values": [1, NaN]}]}', "series[0].values[1]", "must be a finite number"),
        ("forecast", '{"series": [{"values": [1, -Infinity]}]}', "series[0].values[1]", "must be a finite number"),
        ("forecast", '{"series": [{"values": [[1], [1e999]]}]}', "series[0].values[1][0]", "must be a finite number"),
        ("forecast", '{"series": [{"values": [1%s]}]}' % ("0" * 400), "series[0].values[0]", "must be a finite number"),
        ("forecast", '{"series": [{"values": [1, [2]]}]}', "series[0].values[1]", "must be a number; got a list"),
        ("forecast", '{"series": [{"values": [[1], 2]}]}', "series[0].values[1]", "must be a list; got a number"),
        ("forecast", '{"series": [{"values": [[1], [2, 3]]}]}', "series[0].values[1]", "as many"),
        ("forecast", '{"series": [{"values": [1], "start": "soon"}]}', "series[0].start", "ISO-8601"),
        ("forecast", '{"series": [{"values": [1], "freq": "h"}]}', "series[0].freq", "values, start, frequency"),
        ("forecast", '{"series": [{"values": [1]}], "horizon": 1.5}', "horizon", "whole number"),
        ("forecast", '{"series": [{"values": [1]}], "horizon": "2"}', "horizon", "a whole number; got a string"),
        ("forecast", '{"series": [{"values": [1]}], "quantiles": [NaN]}', "quantiles[0]", "must be a finite number"),
    ],
)
async def test_a_wrong_body_is_refused_by_field(client, gateway, path, body, field, said) -> None:
    """The field at fault is named, with what is accepted, and nothing reaches the gateway."""
    answer = await client.post(f"/v1/{path}", content=body)

    assert (400, "INVALID_ARGUMENT", field) == (answer.status_code, answer.json()["code"], answer.json().get("field"))
    assert said in answer.json()["error"]
    assert [] == gateway.calls


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        (b"", None, "empty"),
        (b" \n", None, "empty"),
        (b"[1]", None, "must be a JSON object; got a list"),
        (b"null", None, "must be a JSON object; got null"),
        (b"\xef\xbb\xbf{}", None, "not valid JSON"),
        (b'{"inputs": "a"} x', None, "not valid JSON"),
        (b'{"inputs": ["a", "b', "inputs[1]", "not valid JSON"),
        (b'{"model": "m", "inputs": ["a", "\\ud800"]}', "inputs[1]", "surrogate"),
        (b'{"inputs": ["a",\n"\\udc00 b", "c"]}', "inputs[1]", "surrogate"),
        (b'{"inputs": ["a, [", {"x": 1}, "\xff"]}', "inputs[2]", "UTF-8"),
        (b'{"inputs": "\xc3\x28"}', "inputs", "UTF-8"),
        (b'{"model": "m", "inputs": ' + b"[" * 100_000, "inputs", "nested too deeply"),
        (b'{"inputs": ' + b'{"a":' * 20_000, "inputs", "nested too deeply"),
        (b'{"inputs": ' + b"1" * 5_000 + b"}", "inputs", "out of range"),
        (b'{"inputs": [' + b'"a, \\" [",' * 9_000 + b"x]}", "inputs[9000]", "not valid JSON"),
    ],
)
async def test_faulty_json_is_refused_by_field(client, body, field, said) -> None:
    """What is not JSON is refused with the place where it stops being JSON."""
    answer = await client.post("/v1/sentiment", content=body)

    assert (400, field) == (answer.status_code, answer.json().get("field"))
    assert said in answer.json()["error"]


async def test_many_unknown_fields_are_one_complaint(client: httpx.AsyncClient) -> None:
    """A body full of faults is answered with the first, in a short message."""
    answer = await client.post("/v1/sentiment", json={f"unknown{index}": 0 for index in range(10_000)})

    assert "unknown0" == answer.json()["field"]
    assert len(answer.text) < 500


async def test_a_long_key_is_cut_short(client: httpx.AsyncClient) -> None:
    """A message never carries the payload back."""
    answer = await client.post("/v1/sentiment", json={"k" * 50_000: 0})

    assert len(answer.text) < 500


async def test_the_last_of_two_equal_keys_counts(client: httpx.AsyncClient) -> None:
    """As most parsers do, and as the documentation says."""
    answer = await client.post("/v1/sentiment", content=b'{"inputs": "first", "inputs": "last"}')

    assert "last" == answer.json()["results"][0]["label"]


async def test_the_content_type_is_not_insisted_on(client: httpx.AsyncClient) -> None:
    """`curl -d` sends another one."""
    answer = await client.post(
        "/v1/sentiment", content=b'{"inputs": "a"}', headers={"Content-Type": "application/x-www-form-urlencoded"}
    )

    assert 200 == answer.status_code


def test_every_error_has_a_status() -> None:
    """The table is total. PackageError is left out: it is about a package and never a request."""
    assert set(leaves()) - {PackageError} == set(STATUS)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidArgument("no", field="inputs[3]"), 400),
        (Unauthenticated("no"), 401),
        (PermissionDenied("no"), 403),
        (NotFound("no"), 404),
        (Aborted("no"), 409),
        (PayloadTooLarge("no"), 413),
        (QueueFull("no"), 429),
        (Cancelled("no"), 499),
        (Unavailable("no"), 503),
        (DeadlineExceeded("no"), 504),
    ],
)
async def test_errors_have_one_body(client, gateway, error: ConveyorError, status: int) -> None:
    """Message, code and, where one is at fault, the field."""
    gateway.error = error
    answer = await client.post("/v1/sentiment", json={"inputs": "a"})

    expected = {"error": "no", "code": error.code.value} | ({"field": error.field} if error.field else {})
    assert (status, expected) == (answer.status_code, answer.json())
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("error", "retry_after", "connection"),
    [
        (QueueFull("full"), "1", None),
        (QueueFull("full", retry_after_s=0.2), "1", None),
        (QueueFull("full", retry_after_s=2.1), "3", None),
        (Unavailable("starting", retry_after_s=1.0), "1", "close"),
        (PayloadTooLarge("large"), None, "close"),
        (InvalidArgument("no"), None, None),
    ],
)
async def test_retryable_errors_say_when(client, gateway, error, retry_after, connection) -> None:
    """Retry-After is in whole seconds, one at least; a client of an unavailable server is sent away."""
    gateway.error = error
    answer = await client.post("/v1/sentiment", json={"inputs": "a"})

    assert (retry_after, connection) == (answer.headers.get("retry-after"), answer.headers.get("connection"))


@pytest.mark.parametrize("fault", [RuntimeError("secret path"), Internal("secret path"), PackageError([])])
async def test_a_fault_of_the_server_shows_nothing_but_the_request_id(client, gateway, fault) -> None:
    """The exception goes to the log; the caller gets an id to quote."""
    gateway.error = fault
    with structlog.testing.capture_logs() as logs:
        answer = await client.post("/v1/sentiment", json={"inputs": "a"}, headers={"X-Request-Id": "abc-1"})

    assert (500, "INTERNAL") == (answer.status_code, answer.json()["code"])
    assert "secret" not in answer.text
    assert "abc-1" in answer.json()["error"]
    assert [fault] == [line["exc_info"] for line in logs if "exc_info" in line]


async def test_a_declared_length_over_the_limit_is_refused_unread(client: httpx.AsyncClient) -> None:
    """413 comes before the body does."""
    answer = await client.post("/v1/tag", content=b"{}", headers={"Content-Length": str(2**18 + 1)})

    assert (413, "RESOURCE_EXHAUSTED", "close") == (
        answer.status_code,
        answer.json()["code"],
        answer.headers["connection"],
    )
    assert str(2**18) in answer.json()["error"]


async def test_a_body_without_a_length_is_not_read_for_ever(client: httpx.AsyncClient) -> None:
    """It is refused at the limit; of the rest no more than 64 MiB is taken, so that the client reads the answer."""
    taken = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal taken
        for _ in range(2000):
            taken += 1
            yield b" " * 2**16

    answer = await client.post("/v1/tag", content=chunks())

    assert (413, 5 + 64 * 2**20 // 2**16) == (answer.status_code, taken)


async def test_a_body_of_the_limit_is_accepted(client: httpx.AsyncClient) -> None:
    """The limit itself is within the limit."""
    body = b'{"inputs": "a"}'
    answer = await client.post("/v1/sentiment", content=body + b" " * (2**18 - len(body)))

    assert 200 == answer.status_code


@pytest.mark.parametrize("given", ["soon", "0", "-1", "nan", "inf", ""])
async def test_a_wrong_timeout_is_refused_by_name(client: httpx.AsyncClient, given: str) -> None:
    """X-Request-Timeout is a positive number of seconds."""
    answer = await client.post("/v1/sentiment", json={"inputs": "a"}, headers={"X-Request-Timeout": given})

    assert (400, "X-Request-Timeout") == (answer.status_code, answer.json()["field"])


async def test_the_timeout_becomes_the_deadline(client: httpx.AsyncClient, gateway: FakeGateway) -> None:
    """A request that waits is answered 504 once its time is up; without the header it has the server's."""
    answer = await client.post("/v1/sentiment", json={"inputs": "wait"}, headers={"X-Request-Timeout": "0.01"})
    await client.post("/v1/sentiment", json={"inputs": "a"})

    assert (504, "DEADLINE_EXCEEDED") == (answer.status_code, answer.json()["code"])
    assert 300 == pytest.approx(gateway.calls[1].deadline - gateway.calls[0].deadline, abs=30)


async def test_requests_are_counted_and_logged(client, gateway, request_count) -> None:
    """Answered or refused, each request is one count and one line; a model that was not resolved is `unknown`."""
    with structlog.testing.capture_logs() as logs:
        await client.post("/v1/sentiment", json={"inputs": "a"}, headers={"X-Request-Id": "r1"})
        await client.post("/v1/tag", json={"inputs": 1})
        gateway.error = QueueFull("full")
        await client.post("/v1/forecast", json={"series": [{"values": [1]}]})

    assert 1 == request_count(task="sentiment", model="echo", version="3", protocol="http", code="OK")
    assert 1 == request_count(task="tag", model="unknown", version="unknown", code="INVALID_ARGUMENT")
    assert 1 == request_count(task="forecast", model="unknown", code="RESOURCE_EXHAUSTED")
    lines = [line for line in logs if line["event"] == "request"]
    assert ["OK", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"] == [line["code"] for line in lines]
    assert ("r1", "http", "echo") == (lines[0]["request_id"], lines[0]["protocol"], lines[0]["model"])


async def test_results_round_trip_through_json(client: httpx.AsyncClient) -> None:
    """Any text that JSON can carry comes back as it was."""
    texts = ['\u2028 \x7f \\ "', "😀 e\u0301", "\t\n"]
    answer = await client.post("/v1/sentiment", content=json.dumps({"inputs": texts}))

    assert texts == [result["label"] for result in answer.json()["results"]]
