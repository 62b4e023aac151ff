"""What the gRPC door does about callers that send or wait too much, and about those it leaves at its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import grpc
import grpc.aio
import pytest

from conveyor.api.rpc.proto.conveyor.v1 import conveyor_pb2 as pb
from conveyor.api.rpc.server import GrpcServer
from conveyor.errors import NotFound
from conveyor.gateway.limits import Limits

pytestmark = pytest.mark.anyio

RESPONSES = {"Sentiment": pb.SentimentResponse, "Tag": pb.TagResponse, "Forecast": pb.ForecastResponse}

RawCall = Callable[..., grpc.aio.UnaryUnaryCall]


@pytest.fixture
def limits() -> Limits:
    """A message of 1 MiB, three items, a series of ten values, a minute."""
    return Limits(body_bytes=2**20, items=3, series_values=10, request_timeout_s=60.0)


@pytest.fixture
async def server(gateway, lifecycle, metrics, limits) -> GrpcServer:
    """Takes two calls at a time; not started."""
    return GrpcServer(gateway, lifecycle, metrics, limits, host="127.0.0.1", port=0, max_calls=2)


@pytest.fixture
async def call(server: GrpcServer) -> AsyncIterator[RawCall]:
    """Calls a method by name."""
    port = await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:

        def call(name: str, request) -> grpc.aio.UnaryUnaryCall:
            method = channel.unary_unary(
                f"/conveyor.v1.Conveyor/{name}",
                request_serializer=type(request).SerializeToString,
                response_deserializer=RESPONSES[name].FromString,
            )
            return method(request)

        yield call
    await server.stop(0)


async def _error(pending: grpc.aio.UnaryUnaryCall) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await pending
    return caught.value


@pytest.mark.parametrize(
    ("name", "request_message", "said"),
    [
        ("Sentiment", pb.SentimentRequest(inputs=["a"] * 4), "inputs has 4 items; at most 3"),
        ("Tag", pb.TagRequest(inputs=["a"] * 4), "inputs has 4 items; at most 3"),
        ("Tag", pb.TagRequest(tokens=[pb.TokenList()] * 4), "tokens has 4 items; at most 3"),
        ("Forecast", pb.ForecastRequest(series=[pb.Series()] * 4), "series has 4 items; at most 3"),
        ("Forecast", pb.ForecastRequest(series=[pb.Series(values=[1] * 11)]), "has 11 values; at most 10"),
    ],
)
async def test_counts_are_checked_before_what_is_counted(call, gateway, name, request_message, said) -> None:
    """Too many items never become arrays or lists."""
    error = await _error(call(name, request_message))

    assert grpc.StatusCode.INVALID_ARGUMENT == error.code()
    assert said in error.details()
    assert [] == gateway.calls


async def test_what_was_not_given_is_none(call, gateway) -> None:
    """proto3's empty strings never reach the gateway."""
    await call("Forecast", pb.ForecastRequest(series=[pb.Series(values=[1])]))

    (series,) = gateway.asked[0]["series"]
    assert (None, None, None, None) == (
        series.start,
        series.frequency,
        gateway.asked[0]["model"],
        gateway.asked[0]["version"],
    )


async def test_large_messages_are_answered_as_small_ones(call) -> None:
    """What is read and written in a thread is the same."""
    texts = ["good " * 40_000, "", "bad"]
    answer = await call("Sentiment", pb.SentimentRequest(inputs=texts))

    assert texts == [result.label for result in answer.results]


async def test_a_message_far_over_the_limit_is_refused_by_grpc(call) -> None:
    """Beyond twice the limit the code is the same; request id and pushback are missing."""
    error = await _error(call("Sentiment", pb.SentimentRequest(inputs=["a" * (2**21 + 1)])))

    assert grpc.StatusCode.RESOURCE_EXHAUSTED == error.code()


@pytest.mark.parametrize("text", ["m" * 20_000, "好" * 20_000, "\n" * 20_000])
async def test_a_long_message_does_not_break_the_answer(call, gateway, text) -> None:
    """It is cut to 1 KiB, so that the metadata that carry it twice are not refused on the way."""
    gateway.error = NotFound(text, field=text)
    error = await _error(call("Sentiment", pb.SentimentRequest(inputs=["a"])))

    assert grpc.StatusCode.NOT_FOUND == error.code()
    assert error.details().endswith(text[0] + "…")
    assert len(error.details().encode()) <= 1024


async def test_calls_beyond_the_limit_are_refused(call, gateway) -> None:
    """RESOURCE_EXHAUSTED; those that were there first are answered."""
    first = call("Sentiment", pb.SentimentRequest(inputs=["wait"]))
    await gateway.waiting.wait()
    gateway.waiting.clear()
    second = call("Sentiment", pb.SentimentRequest(inputs=["wait"]))
    await gateway.waiting.wait()
    error = await _error(call("Sentiment", pb.SentimentRequest(inputs=["a"])))
    gateway.released.set()
    await asyncio.gather(first, second)

    assert grpc.StatusCode.RESOURCE_EXHAUSTED == error.code()


async def test_without_a_deadline_the_servers_holds(gateway, lifecycle, metrics) -> None:
    """A caller that names no time gets no more than the server's."""
    limits = Limits(request_timeout_s=0.02)
    server = GrpcServer(gateway, lifecycle, metrics, limits, host="127.0.0.1", port=0)
    port = await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        method = channel.unary_unary("/conveyor.v1.Conveyor/Sentiment")
        error = await _error(method(pb.SentimentRequest(inputs=["wait"]).SerializeToString()))
    await server.stop(0)

    assert grpc.StatusCode.DEADLINE_EXCEEDED == error.code()
    assert "x-request-id" in dict(error.trailing_metadata())


async def test_calls_beyond_the_grace_are_told_so(call, server, gateway, request_count) -> None:
    """UNAVAILABLE with the request id, not a cancellation that nobody asked for."""
    pending = call("Sentiment", pb.SentimentRequest(inputs=["wait"]))
    await gateway.waiting.wait()
    stopping = asyncio.create_task(server.stop(0))
    error = await _error(pending)
    await stopping

    assert grpc.StatusCode.UNAVAILABLE == error.code()
    assert "x-request-id" in dict(error.trailing_metadata())
    assert gateway.cancelled.is_set()
    assert 1 == request_count(protocol="grpc", code="UNAVAILABLE")
