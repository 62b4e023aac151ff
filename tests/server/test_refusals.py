"""What is not acceptable is refused with the field at fault, on both doors."""

from __future__ import annotations

import json
import math

import grpc
import httpx
import pytest
from google.rpc import error_details_pb2, status_pb2

from support.rpc import Client, pb

JSON_REFUSALS = {
    "not JSON": ("/v1/sentiment", b"{", 400, None),
    "empty list": ("/v1/sentiment", {"inputs": []}, 400, "inputs"),
    "no inputs": ("/v1/sentiment", {}, 400, "inputs"),
    "wrong type": ("/v1/sentiment", {"inputs": ["a", 3]}, 400, "inputs[1]"),
    "unknown field": ("/v1/sentiment", {"inputs": "a", "colour": "red"}, 400, "colour"),
    "too many items": ("/v1/sentiment", {"inputs": ["a"] * 1025}, 400, "inputs"),
    "NUL": ("/v1/sentiment", {"inputs": ["a", "b\0"]}, 400, "inputs[1]"),
    "lone surrogate": ("/v1/sentiment", b'{"inputs": ["a", "\\ud800"]}', 400, "inputs[1]"),
    "text of 5 MB": ("/v1/sentiment", {"inputs": "x" * 5_000_000}, 400, "inputs[0]"),
    "body over 8 MiB": ("/v1/sentiment", {"inputs": "x" * 9_000_000}, 413, None),
    "deep nesting": ("/v1/sentiment", b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "inputs"),
    "unknown model": ("/v1/sentiment", {"inputs": "a", "model": "nobody"}, 404, None),
    "unknown version": ("/v1/sentiment", {"inputs": "a", "version": "9"}, 404, None),
    "model of another task": ("/v1/sentiment", {"inputs": "a", "model": "pos-en"}, 400, "model"),
    "empty token": ("/v1/tag", {"inputs": [["a", ""]]}, 400, "inputs[0][1]"),
    "texts and tokens mixed": ("/v1/tag", {"inputs": ["a", ["b"]]}, 400, "inputs[1]"),
    "NaN": ("/v1/forecast", b'{"series": [{"values": [1, NaN]}]}', 400, "series[0].values[1]"),
    "too large a number": ("/v1/forecast", b'{"series": [{"values": [1e999]}]}', 400, "series[0].values[0]"),
    "nothing observed": ("/v1/forecast", {"series": [{"values": [None]}]}, 400, "series[0].values"),
    "empty series": ("/v1/forecast", {"series": [{"values": []}]}, 400, "series[0].values"),
    "ragged rows": ("/v1/forecast", {"series": [{"values": [[1.0], [1.0, 2.0]]}]}, 400, "series[0].values[1]"),
    "wrong width": ("/v1/forecast", {"series": [{"values": [[1.0, 2.0]]}]}, 400, "series[0].values"),
    "bad start": ("/v1/forecast", {"series": [{"values": [1.0], "start": "soon"}]}, 400, "series[0].start"),
    "bad frequency": ("/v1/forecast", {"series": [{"values": [1.0], "frequency": "?"}]}, 400, "series[0].frequency"),
    "other frequency": ("/v1/forecast", {"series": [{"values": [1.0], "frequency": "h"}]}, 400, "series[0].frequency"),
    "horizon too far": ("/v1/forecast", {"series": [{"values": [1.0]}], "horizon": 7}, 400, "horizon"),
    "horizon zero": ("/v1/forecast", {"series": [{"values": [1.0]}], "horizon": 0}, 400, "horizon"),
    "level outside": ("/v1/forecast", {"series": [{"values": [1.0]}], "quantiles": [0.95]}, 400, "quantiles[0]"),
}


@pytest.mark.parametrize("name", JSON_REFUSALS)
def test_http_names_what_is_wrong(http: httpx.Client, name: str) -> None:
    """Each case: the status of the contract, one sentence, the code and the field."""
    path, body, status, field = JSON_REFUSALS[name]
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = http.post(path, content=content, headers={"X-Request-Id": "mine"})

    assert status == response.status_code, response.text
    error = response.json()
    assert error["error"]
    assert {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 413: "RESOURCE_EXHAUSTED"}[status] == error["code"]
    if field is not None:
        assert field == error["field"]
    assert "mine" == response.headers["x-request-id"]


GRPC_REFUSALS = {
    "no inputs": ("Sentiment", pb.SentimentRequest(), "INVALID_ARGUMENT", "inputs"),
    "NUL": ("Sentiment", pb.SentimentRequest(inputs=["a", "b\0"]), "INVALID_ARGUMENT", "inputs[1]"),
    "not UTF-8": ("Sentiment", b"\x0a\x01a\x0a\x01\xff", "INVALID_ARGUMENT", "inputs[1]"),
    "surrogate bytes": ("Sentiment", b"\x0a\x03\xed\xa0\x80", "INVALID_ARGUMENT", "inputs[0]"),
    "no message": ("Sentiment", b"\xff\xff\xff", "INVALID_ARGUMENT", None),
    "text of 5 MB": ("Sentiment", pb.SentimentRequest(inputs=["x" * 5_000_000]), "INVALID_ARGUMENT", "inputs[0]"),
    "over 8 MiB": ("Sentiment", pb.SentimentRequest(inputs=["x" * 9_000_000]), "RESOURCE_EXHAUSTED", None),
    "unknown model": ("Sentiment", pb.SentimentRequest(inputs=["a"], model="nobody"), "NOT_FOUND", None),
    "texts and tokens": (
        "Tag",
        pb.TagRequest(inputs=["a"], tokens=[pb.TokenList(tokens=["b"])]),
        "INVALID_ARGUMENT",
        None,
    ),
    "infinity": (
        "Forecast",
        pb.ForecastRequest(series=[pb.Series(values=[1.0, math.inf])]),
        "INVALID_ARGUMENT",
        "series[0].values[1]",
    ),
    "horizon": (
        "Forecast",
        pb.ForecastRequest(series=[pb.Series(values=[1.0])], horizon=7),
        "INVALID_ARGUMENT",
        "horizon",
    ),
}


@pytest.mark.parametrize("name", GRPC_REFUSALS)
def test_grpc_names_what_is_wrong(rpc: Client, name: str) -> None:
    """Each case: the code of the contract, and a BadRequest that names the field."""
    method, request, code, field = GRPC_REFUSALS[name]
    with pytest.raises(grpc.RpcError) as raised:
        rpc.stub(method)(request, timeout=30, metadata=[("x-request-id", "mine")])

    assert code == raised.value.code().name, raised.value.details()
    trailing = dict(raised.value.trailing_metadata())
    assert "mine" == trailing["x-request-id"]
    if field is not None:
        status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
        bad_request = error_details_pb2.BadRequest()
        assert status.details[0].Unpack(bad_request)
        assert [field] == [violation.field for violation in bad_request.field_violations]
    if code == "RESOURCE_EXHAUSTED":
        assert "-1" == trailing["grpc-retry-pushback-ms"]


def test_a_deadline_that_has_passed_is_refused(http: httpx.Client, rpc: Client) -> None:
    """504 and DEADLINE_EXCEEDED; a deadline that is no number is the caller's mistake."""
    late = http.post("/v1/sentiment", json={"inputs": "word " * 100_000}, headers={"X-Request-Timeout": "0.001"})
    assert (504, "DEADLINE_EXCEEDED") == (late.status_code, late.json()["code"])

    wrong = http.post("/v1/sentiment", json={"inputs": "a"}, headers={"X-Request-Timeout": "soon"})
    assert (400, "X-Request-Timeout") == (wrong.status_code, wrong.json()["field"])

    with pytest.raises(grpc.RpcError) as raised:
        rpc.call("Sentiment", pb.SentimentRequest(inputs=["word " * 100_000]), timeout=0.001)
    assert grpc.StatusCode.DEADLINE_EXCEEDED == raised.value.code()


def test_a_priority_is_one_of_three(http: httpx.Client, rpc: Client) -> None:
    """Both doors take the three names and refuse any other."""
    for name, status in (("high", 200), ("normal", 200), ("low", 200), ("urgent", 400)):
        response = http.post("/v1/sentiment", json={"inputs": "a"}, headers={"X-Request-Priority": name})
        assert status == response.status_code
    assert "X-Request-Priority" == response.json()["field"]

    rpc.stub("Sentiment")(pb.SentimentRequest(inputs=["a"]), metadata=[("x-request-priority", "high")])
    with pytest.raises(grpc.RpcError) as raised:
        rpc.stub("Sentiment")(pb.SentimentRequest(inputs=["a"]), metadata=[("x-request-priority", "urgent")])
    assert grpc.StatusCode.INVALID_ARGUMENT == raised.value.code()


def test_paths_and_verbs_that_do_not_exist_answer_in_the_same_form(http: httpx.Client) -> None:
    """404 and 405 carry the error body and a request id."""
    for response, status in ((http.get("/nowhere"), 404), (http.get("/v1/sentiment"), 405)):
        assert status == response.status_code
        assert {"error", "code"} <= set(response.json())
        assert response.headers["x-request-id"]
