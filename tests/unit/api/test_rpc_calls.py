"""The gRPC door on a real port."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NoReturn

import grpc
import grpc.aio
import pytest
import structlog
from fake_gateway import SCORE, FakeGateway, leaves
from google.rpc import error_details_pb2, status_pb2

from conveyor.api.rpc.errors import STATUS
from conveyor.api.rpc.proto.conveyor.v1 import conveyor_pb2 as pb
from conveyor.api.rpc.server import GrpcServer
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

RawCall = Callable[..., grpc.aio.UnaryUnaryCall]

RESPONSES = {
    "Sentiment": pb.SentimentResponse,
    "Tag": pb.TagResponse,
    "Forecast": pb.ForecastResponse,
    "ListModels": pb.ListModelsResponse,
}


@pytest.fixture
async def call(gateway, lifecycle, metrics, limits) -> AsyncIterator[RawCall]:
    """Calls a method by name with a message or with bytes."""
    server = GrpcServer(gateway, lifecycle, metrics, limits, host="127.0.0.1", port=0)
    port = await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:

        def call(name: str, request, **options) -> grpc.aio.UnaryUnaryCall:
            raw = request if isinstance(request, bytes) else request.SerializeToString()
            method = channel.unary_unary(
                f"/conveyor.v1.Conveyor/{name}", response_deserializer=RESPONSES[name].FromString
            )
            return method(raw, **options)

        yield call
    await server.stop(0)


async def _refusal(pending: Awaitable[object]) -> tuple[grpc.aio.AioRpcError, dict[str, str | bytes], str | None]:
    """Returns the error of a call, its trailing metadata, and the field its details name."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await pending
    metadata = dict(caught.value.trailing_metadata())
    field = None
    if "grpc-status-details-bin" in metadata:
        status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
        assert (status.code, status.message) == (caught.value.code().value[0], caught.value.details())
        for detail in status.details:
            bad = error_details_pb2.BadRequest()
            if detail.Unpack(bad):
                (violation,) = bad.field_violations
                field = violation.field
    return caught.value, metadata, field


async def test_sentiment_answers_in_order(call: RawCall, gateway: FakeGateway) -> None:
    """Texts go in, labels come out unrounded; what was not set is not given to the gateway."""
    answer = await call("Sentiment", pb.SentimentRequest(inputs=["fine", "", "好\0"]))

    assert ("echo", "3", ["fine", "", "好\0"]) == (
        answer.model,
        answer.version,
        [result.label for result in answer.results],
    )
    assert {"fine": SCORE} == dict(answer.results[0].scores)
    assert {"inputs": ["fine", "", "好\0"], "model": None, "version": None} == gateway.asked[0]


@pytest.mark.parametrize(
    ("request_message", "inputs", "tokens"),
    [
        (pb.TagRequest(inputs=["Ada sang"]), ["Ada sang"], None),
        (pb.TagRequest(tokens=[pb.TokenList(tokens=["Ada", "sang"]), pb.TokenList()]), None, [["Ada", "sang"], []]),
        (pb.TagRequest(), [], None),
    ],
)
async def test_tag_takes_texts_or_tokens(call, gateway, request_message, inputs, tokens) -> None:
    """One of the two is given; with neither, the list of texts is empty."""
    await call("Tag", request_message)

    assert (inputs, tokens) == (gateway.asked[0]["inputs"], gateway.asked[0]["tokens"])


async def test_tag_refuses_both_and_names_tokens_by_their_own_field(call: RawCall) -> None:
    """Faults in tokens are named as the message has them."""
    bad = pb.TagRequest(tokens=[pb.TokenList(), pb.TokenList(tokens=["ok", "bad"])])
    both = pb.TagRequest(inputs=["a"], tokens=[pb.TokenList(tokens=["a"])])

    assert "tokens[1].tokens[1]" == (await _refusal(call("Tag", bad)))[2]
    assert grpc.StatusCode.INVALID_ARGUMENT == (await _refusal(call("Tag", both)))[0].code()


async def test_forecast_takes_row_major_values(call: RawCall, gateway: FakeGateway) -> None:
    """Values are rows of features, NaN is missing; forecasts come back row-major with their shape."""
    answer = await call(
        "Forecast",
        pb.ForecastRequest(
            series=[pb.Series(values=[1, 2, 3, math.nan], features=2, start="2024-01-01"), pb.Series(values=[5.5])],
            horizon=4,
            quantiles=[0.25],
        ),
    )
    await call("Forecast", pb.ForecastRequest(series=[pb.Series(values=[1])]))

    first, second = answer.results
    assert ([1, 2, 3], 2, 2) == (list(first.mean.values)[:3], first.mean.steps, first.mean.targets)
    assert math.isnan(first.mean.values[3])
    assert ["0.25"] == list(first.quantiles)
    assert (["t0", "t1"], 1, 0) == (list(first.targets), len(first.timestamps), len(second.timestamps))
    assert (4, [0.25]) == (gateway.asked[0]["horizon"], gateway.asked[0]["quantiles"])
    assert (None, None) == (gateway.asked[1]["horizon"], gateway.asked[1]["quantiles"])


async def test_forecast_refuses_values_that_do_not_divide(call: RawCall, gateway: FakeGateway) -> None:
    """The number of values must be a multiple of the features."""
    request = pb.ForecastRequest(series=[pb.Series(values=[1]), pb.Series(values=[1, 2, 3], features=2)])
    error, _, field = await _refusal(call("Forecast", request))

    assert (grpc.StatusCode.INVALID_ARGUMENT, "series[1].features") == (error.code(), field)
    assert [] == gateway.calls


async def test_models_are_listed(call: RawCall) -> None:
    """A description has the names of the JSON; what is not known is not set."""
    pending = call("ListModels", pb.ListModelsRequest(), metadata=(("x-request-id", "list-1"),))
    (model,) = (await pending).models

    assert ("echo", ["1", "3"], True, {"executor": "none"}) == (
        model.name,
        list(model.versions),
        model.default,
        dict(model.plan),
    )
    assert not model.HasField("history")
    assert "list-1" == dict(await pending.trailing_metadata())["x-request-id"]


@pytest.mark.parametrize(
    ("name", "raw", "field"),
    [
        ("Sentiment", b"\x0a\x01a\x0a\x02\xff\xfe", "inputs[1]"),
        ("Sentiment", b"\x0a\x01a\x12\x01\xff", "model"),
        ("Sentiment", b"\x0a\x03\xed\xa0\x80", "inputs[0]"),
        ("Sentiment", b"\x0a\x7fshort", None),
        ("Sentiment", b"\xff\xff\xff", None),
        ("Tag", b"\x12\x03\x0a\x01a\x12\x06\x0a\x01a\x0a\x01\xff", "tokens[1].tokens[1]"),
        ("Tag", b"\x12\x03\x0a\x7fx", "tokens[0]"),
        ("Forecast", b"\x0a\x03\x1a\x01\xff", "series[0].start"),
        ("Forecast", b"\x0a\x05\x0a\x03abc", "series[0].values"),
        ("Forecast", b"\x1a\x03abc", "quantiles"),
        ("ListModels", b"\xff", None),
    ],
)
async def test_a_malformed_message_is_the_callers_fault(call, gateway, name, raw, field) -> None:
    """What cannot be parsed is INVALID_ARGUMENT, and the field at fault is named where there is one."""
    error, metadata, named = await _refusal(call(name, raw))

    assert (grpc.StatusCode.INVALID_ARGUMENT, field) == (error.code(), named)
    assert metadata["x-request-id"]
    assert [] == gateway.calls


async def test_unknown_fields_are_let_through(call: RawCall) -> None:
    """As protobuf's own rule is, so that newer clients can speak to older servers."""
    answer = await call("Sentiment", pb.SentimentRequest(inputs=["a"]).SerializeToString() + b"\xa2\x06\x01x")

    assert ["a"] == [result.label for result in answer.results]


async def test_a_message_over_the_limit_is_refused_for_good(call: RawCall, request_count) -> None:
    """RESOURCE_EXHAUSTED with a pushback that tells clients not to retry; the limit itself is accepted."""
    largest = pb.SentimentRequest(inputs=["a" * (2**18 - 4)])
    assert 2**18 == largest.ByteSize()
    await call("Sentiment", largest)
    error, metadata, _ = await _refusal(call("Sentiment", pb.SentimentRequest(inputs=["a" * 2**18])))

    assert (grpc.StatusCode.RESOURCE_EXHAUSTED, "-1") == (error.code(), metadata["grpc-retry-pushback-ms"])
    assert 1 == request_count(protocol="grpc", code="RESOURCE_EXHAUSTED", model="unknown")


async def test_a_message_over_the_limit_is_refused_for_good_while_there_is_no_room(
    call: RawCall, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes none of the room in which others are read."""

    def full(*_: object) -> NoReturn:
        raise QueueFull("too many bytes of requests are being read; try again later", retry_after_s=1.0)

    monkeypatch.setattr("conveyor.api.offload.Room.take", full)
    error, metadata, _ = await _refusal(call("Sentiment", pb.SentimentRequest(inputs=["a" * 2**18])))

    assert (grpc.StatusCode.RESOURCE_EXHAUSTED, "-1") == (error.code(), metadata["grpc-retry-pushback-ms"])


def test_every_error_has_a_status() -> None:
    """The table is total and agrees with the codes. PackageError is never a request's fault."""
    assert set(leaves()) - {PackageError} == set(STATUS)
    assert {error: error.code.value for error in STATUS} == {error: status.name for error, status in STATUS.items()}


@pytest.mark.parametrize(
    ("error", "pushback"),
    [
        (InvalidArgument("no", field="inputs[3]"), None),
        (Unauthenticated("no"), None),
        (PermissionDenied("no"), None),
        (NotFound("no"), None),
        (Aborted("no"), None),
        (PayloadTooLarge("no"), "-1"),
        (QueueFull("no", retry_after_s=0.25), "250"),
        (QueueFull("no"), "1000"),
        (Cancelled("no"), None),
        (Unavailable("no", retry_after_s=1.0), "1000"),
        (DeadlineExceeded("no"), None),
    ],
)
async def test_errors_carry_their_details(call, gateway, error: ConveyorError, pushback: str | None) -> None:
    """Status, sentence, field, request id, and when to come back."""
    gateway.error = error
    pending = call("Sentiment", pb.SentimentRequest(inputs=["a"]), metadata=(("x-request-id", "mine"),))
    caught, metadata, field = await _refusal(pending)

    assert (error.code.value, "no", error.field) == (caught.code().name, caught.details(), field)
    assert (pushback, "mine") == (metadata.get("grpc-retry-pushback-ms"), metadata["x-request-id"])


@pytest.mark.parametrize("name", ["Sentiment", "ListModels"])
@pytest.mark.parametrize("fault", [RuntimeError("secret path"), Internal("secret path")])
async def test_a_fault_of_the_server_shows_nothing_but_the_request_id(call, gateway, name, fault) -> None:
    """The exception goes to the log; the caller gets an id to quote."""
    gateway.error = fault
    request = pb.SentimentRequest(inputs=["a"]) if name == "Sentiment" else pb.ListModelsRequest()
    with structlog.testing.capture_logs() as logs:
        error, metadata, _ = await _refusal(call(name, request))

    assert grpc.StatusCode.INTERNAL == error.code()
    assert "secret" not in error.details()
    assert metadata["x-request-id"] in error.details()
    assert [fault] == [line["exc_info"] for line in logs if "exc_info" in line]


async def test_calls_carry_the_request_id(call: RawCall, gateway: FakeGateway) -> None:
    """The caller's where it sent one, a new one of 32 hex digits otherwise."""
    mine = call("Sentiment", pb.SentimentRequest(inputs=["a"]), metadata=(("x-request-id", "mine"),))
    new = call("Sentiment", pb.SentimentRequest(inputs=["a"]))
    await asyncio.gather(mine, new)
    ids = [dict(await pending.trailing_metadata())["x-request-id"] for pending in (mine, new)]

    assert ("mine", 32) == (ids[0], len(ids[1]))
    assert set(ids) == {seen.request_id for seen in gateway.calls}


async def test_the_callers_deadline_is_the_calls(call: RawCall, gateway: FakeGateway, request_count, counted) -> None:
    """The gateway learns the deadline; without one it is the server's own."""
    error, _, _ = await _refusal(call("Sentiment", pb.SentimentRequest(inputs=["wait"]), timeout=1.0))
    await call("Sentiment", pb.SentimentRequest(inputs=["a"]))
    await counted(code="DEADLINE_EXCEEDED")

    assert grpc.StatusCode.DEADLINE_EXCEEDED == error.code()
    assert 300 == pytest.approx(gateway.calls[1].deadline - gateway.calls[0].deadline, abs=30)
    assert 1 == request_count(protocol="grpc", code="DEADLINE_EXCEEDED")


async def test_a_deadline_that_passes_before_a_call_is_read_is_counted_as_one(
    call: RawCall, gateway: FakeGateway, request_count, counted
) -> None:
    """It is known from the call's arrival on."""
    gateway.gather_s = 1.5
    error, _, _ = await _refusal(call("Sentiment", pb.SentimentRequest(inputs=["a"]), timeout=1.0))
    await counted(protocol="grpc")

    assert grpc.StatusCode.DEADLINE_EXCEEDED == error.code()
    assert 1 == request_count(protocol="grpc", code="DEADLINE_EXCEEDED")
    assert [] == gateway.calls


async def test_a_caller_that_leaves_cancels_its_call(
    call: RawCall, gateway: FakeGateway, request_count, counted
) -> None:
    """Cancelling cancels the work, and the call is counted as cancelled."""
    pending = call("Sentiment", pb.SentimentRequest(inputs=["wait"]))
    await gateway.waiting.wait()
    pending.cancel()
    await gateway.cancelled.wait()
    await counted(code="CANCELLED")

    assert 1 == request_count(task="sentiment", protocol="grpc", code="CANCELLED")


async def test_calls_are_counted_and_logged(call: RawCall, request_count) -> None:
    """Each call is one count and one line, with the protocol."""
    with structlog.testing.capture_logs() as logs:
        await call("Sentiment", pb.SentimentRequest(inputs=["a"]))

    assert 1 == request_count(task="sentiment", model="echo", version="3", protocol="grpc", code="OK")
    assert [("grpc", "OK")] == [(line["protocol"], line["code"]) for line in logs if line["event"] == "request"]
