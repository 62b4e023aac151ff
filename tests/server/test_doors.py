"""What a real server does about callers that are careless or hostile."""

from __future__ import annotations

import http.client
import json
from urllib.parse import urlsplit

import grpc
import httpx
import pytest

from conveyor.errors import InvalidArgument
from conveyor.gateway.items import parse_line, series_item
from support.rpc import Client, pb
from support.server import ServerProcess

REFUSALS = {
    "millions of lists": ("/v1/tag", b'{"inputs": [%b[]]}' % (b"[]," * 2_000_000), "inputs"),
    "millions of values": (
        "/v1/forecast",
        b'{"series": [{"values": [%b1]}]}' % (b"1," * 3_900_000),
        "series[0].values",
    ),
    "millions of rows": (
        "/v1/forecast",
        b'{"series": [{"values": [%b[1]]}]}' % (b"[1]," * 1_900_000),
        "series[0].values",
    ),
    "empty start": ("/v1/forecast", b'{"series": [{"values": [1], "start": ""}]}', "series[0].start"),
    "empty frequency": ("/v1/forecast", b'{"series": [{"values": [1], "frequency": ""}]}', "series[0].frequency"),
    "bool among numbers": ("/v1/forecast", b'{"series": [{"values": [1, true]}]}', "series[0].values[1]"),
    "huge integer": ("/v1/forecast", b'{"series": [{"values": [1, 1%b]}]}' % (b"0" * 400), "series[0].values[1]"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_http_refuses_by_field(http: httpx.Client, name: str) -> None:
    """However much there is of it, the answer is 400 and names the field."""
    path, body, field = REFUSALS[name]
    answer = http.post(path, content=body)

    assert (400, field) == (answer.status_code, answer.json().get("field")), answer.text


@pytest.mark.parametrize("body", [{"model": ""}, {"version": ""}])
def test_empty_names_are_not_found(http: httpx.Client, body: dict[str, str]) -> None:
    """An empty string is not the same as leaving the name out."""
    assert 404 == http.post("/v1/sentiment", json={"inputs": "a"} | body).status_code


def test_empty_names_over_grpc_are_the_defaults(rpc: Client) -> None:
    """proto3 does not tell an empty string from one that was not given."""
    answer = rpc.call("Sentiment", pb.SentimentRequest(inputs=["a"], model="", version=""))

    assert "sentiment-en" == answer.model


def test_a_client_that_sends_everything_first_reads_413(tiny_server: ServerProcess) -> None:
    """Python's own client does; it gets the answer, not a connection that was reset."""
    connection = http.client.HTTPConnection(urlsplit(tiny_server.http).netloc, timeout=30)
    connection.request("POST", "/v1/sentiment", body=json.dumps({"inputs": "x" * 9_600_000}))
    answer = connection.getresponse()
    body = json.loads(answer.read())
    connection.close()

    assert (413, "RESOURCE_EXHAUSTED") == (answer.status, body["code"])


def test_a_name_of_any_length_is_not_found(http: httpx.Client, rpc: Client) -> None:
    """Both doors say so in a message that fits."""
    name = "好" * 20_000
    answer = http.post("/v1/sentiment", json={"inputs": "a", "model": name})
    with pytest.raises(grpc.RpcError) as raised:
        rpc.call("Sentiment", pb.SentimentRequest(inputs=["a"], model=name))

    assert (404, True) == (answer.status_code, len(answer.content) < 2048)
    assert grpc.StatusCode.NOT_FOUND == raised.value.code()


def test_the_metrics_port_has_the_manners_of_the_others(tiny_server: ServerProcess) -> None:
    """Its refusals have the error body, its answers a request id."""
    answer = httpx.get(tiny_server.metrics.replace("/metrics", "/nothing"), trust_env=False, timeout=60)

    assert (404, "NOT_FOUND") == (answer.status_code, answer.json()["code"])
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
def test_health_answers_head(http: httpx.Client, path: str) -> None:
    """As load balancers ask."""
    assert 200 == http.head(path).status_code


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ('{"values": [1, NaN]}', "line 1.values[1]"),
        ('{"values": [[1], [-Infinity]]}', "line 1.values[1][0]"),
        (b'{"values": [1e999]}', "line 1.values[0]"),
        ('{"values": [1%s]}' % ("0" * 400), "line 1.values[0]"),
        ('{"values": [1%s]}' % ("0" * 5000), "line 1"),
        ('{"values": [1%s.5]}' % ("0" * 400), "line 1.values[0]"),
        ('{"values": [1, false]}', "line 1.values[1]"),
        ('{"values": ["1"]}', "line 1.values[0]"),
        ('{"values": [null, [1]]}', "line 1.values[0]"),
        ('{"values": {"a": 1}}', "line 1.values"),
        ('{"values": [1], "start": ""}', "line 1.start"),
        ("[" * 100_000, "line 1"),
        ("", "line 1"),
        ("\ud800", "line 1"),
        (b'"\xff"', "line 1"),
    ],
)
def test_a_line_of_a_file_is_read_as_strictly(line: str | bytes, field: str) -> None:
    """What the doors refuse is refused offline, by field."""
    with pytest.raises(InvalidArgument) as caught:
        series_item(parse_line(line, "line 1"), "line 1")

    assert field == caught.value.field


def test_a_line_that_is_right_is_read() -> None:
    """Numbers, and null where one is missing."""
    series = series_item(parse_line('{"values": [[1, null], [2, 2.5]]}', "line 1"), "line 1")

    assert [1.0, 2.0] == series.values[:, 0].tolist()
    assert (2, 2.5) == (series.values.shape[1], series.values[1, 1])
