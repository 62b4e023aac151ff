"""Sessions over gRPC, before an engine that remembers what it was given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest

from conveyor.api.rpc.proto.conveyor.v1 import conveyor_pb2 as pb
from conveyor.api.rpc.server import GrpcServer
from conveyor.lifecycle.phase import Lifecycle, Phase
from support.session_gateway import RememberingEngine, until

pytestmark = pytest.mark.anyio

NOBODY = "forecast-electricity.1." + "0" * 32


@pytest.fixture
async def channel(gateway, lifecycle, metrics, limits) -> AsyncIterator[grpc.aio.Channel]:
    """To a server."""
    server = GrpcServer(gateway, lifecycle, metrics, limits, host="127.0.0.1", port=0)
    port = await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(0)


@pytest.fixture
async def stream(channel) -> grpc.aio.StreamStreamCall:
    """A `Session` stream."""
    return channel.stream_stream(
        "/conveyor.v1.Conveyor/Session",
        request_serializer=lambda request: request if isinstance(request, bytes) else request.SerializeToString(),
        response_deserializer=pb.SessionResponse.FromString,
    )(metadata=(("x-request-id", "mine"),))


async def ask(stream: grpc.aio.StreamStreamCall, **request: object) -> pb.SessionResponse:
    """The next answer, which is this message's while no other waits."""
    await stream.write(pb.SessionRequest(**request))  # type: ignore[arg-type]
    answer: pb.SessionResponse = await stream.read()
    assert request.get("id", "") == answer.id
    return answer


async def test_a_stream_carries_many_sessions(stream) -> None:
    """Each message is answered by one with its id; the stream ends well when its client has sent all."""
    one = await ask(stream, id="1", open=pb.OpenSession(model="forecast-electricity", values=[1, 2]))
    two = await ask(stream, id="2", open=pb.OpenSession(model="forecast-electricity", start="2024-03-01"))
    session, other = one.opened.session, two.opened.session
    forecast = await ask(stream, id="3", append=pb.AppendSession(session=other, values=[7], horizon=1, quantiles=[0.5]))
    plain = await ask(stream, id="4", append=pb.AppendSession(session=session, values=[3, 4], expected_steps=2))
    fork = await ask(stream, id="5", fork=pb.ForkSession(session=session))
    closed = await ask(stream, id="6", close=pb.CloseSession(session=session))
    await stream.done_writing()

    assert ("forecast-electricity", "1", 2, 3600.0) == (
        one.opened.model,
        one.opened.version,
        one.opened.steps,
        one.opened.expires_in,
    )
    assert ([7.0], ["2024-03-01T00:30:00+00:00"]) == (
        list(forecast.appended.result.mean.values),
        list(forecast.appended.result.timestamps),
    )
    assert (4, False) == (plain.appended.steps, plain.appended.HasField("result"))
    assert 4 == fork.opened.steps
    assert (session, 4) == (closed.closed.session, closed.closed.steps)
    assert grpc.aio.EOF is await stream.read()
    assert grpc.StatusCode.OK == await stream.code()
    assert "mine" == dict(await stream.trailing_metadata())["x-request-id"]


async def test_an_error_is_of_its_message_and_the_stream_goes_on(stream, request_count) -> None:
    """With code and field."""
    session = (await ask(stream, open=pb.OpenSession(model="forecast-electricity", values=[1]))).opened.session
    refusals = [
        ({"append": pb.AppendSession(session=session, values=[1], expected_steps=0)}, "ABORTED", ""),
        ({"append": pb.AppendSession(session=session, values=[float("inf")])}, "INVALID_ARGUMENT", "values[0]"),
        ({"append": pb.AppendSession(session=session, values=[1], features=-1)}, "INVALID_ARGUMENT", "features"),
        ({"append": pb.AppendSession(session=NOBODY, values=[1])}, "NOT_FOUND", ""),
        ({"open": pb.OpenSession(model="nobody")}, "NOT_FOUND", ""),
        ({"open": pb.OpenSession(model="forecast-electricity", start="soon")}, "INVALID_ARGUMENT", "start"),
        ({"fork": pb.ForkSession(session="")}, "NOT_FOUND", ""),
        ({}, "INVALID_ARGUMENT", "request"),
    ]
    for number, (request, code, field) in enumerate(refusals):
        error = (await ask(stream, id=str(number), **request)).error
        assert (code, field) == (error.code, error.field), error.error
    await stream.write(b"\xff")
    assert "INVALID_ARGUMENT" == (await stream.read()).error.code

    assert 2 == (await ask(stream, append=pb.AppendSession(session=session, values=[1]))).appended.steps
    assert 1 == request_count(protocol="grpc", code="ABORTED")


async def test_messages_of_a_session_keep_their_order(stream, engine: RememberingEngine) -> None:
    """A fork and a close wait for what was sent before them, and hold up what comes after; other sessions go on."""
    session = (await ask(stream, open=pb.OpenSession(model="forecast-electricity"))).opened.session
    other = (await ask(stream, open=pb.OpenSession(model="forecast-electricity"))).opened.session
    engine.held = True
    for number, request in enumerate(
        [
            pb.SessionRequest(append=pb.AppendSession(session=session, values=[1])),
            pb.SessionRequest(fork=pb.ForkSession(session=session)),
            pb.SessionRequest(append=pb.AppendSession(session=session, values=[2])),
            pb.SessionRequest(close=pb.CloseSession(session=session)),
            pb.SessionRequest(fork=pb.ForkSession(session=other)),
        ]
    ):
        request.id = str(number)
        await stream.write(request)
    first = await stream.read()
    held, engine.held = list(engine.blocks[2:]), False
    for block in held:
        engine.answer(block)
    answers = [await stream.read() for _ in range(4)]

    assert ("4", 0) == (first.id, first.opened.steps)
    assert ["0", "1", "2", "3"] == [answer.id for answer in answers]
    assert [1, 1, 2, 2] == [
        answers[0].appended.steps,
        answers[1].opened.steps,
        answers[2].appended.steps,
        answers[3].closed.steps,
    ]


async def test_appends_of_a_session_keep_their_order_whatever_they_ask_for(stream, engine: RememberingEngine) -> None:
    """Those that want a forecast and those that do not are not sorted apart."""
    session = (await ask(stream, open=pb.OpenSession(model="forecast-electricity"))).opened.session
    for number in range(40):
        append = pb.AppendSession(session=session, values=[number], horizon=number % 3)
        await stream.write(pb.SessionRequest(id=str(number), append=append))
    answers = sorted([await stream.read() for _ in range(40)], key=lambda answer: int(answer.id))

    assert [list(map(float, range(40)))] == list(engine.sessions.values())
    assert list(range(1, 41)) == [answer.appended.steps for answer in answers]


async def test_a_fork_waits_for_every_append_before_it(stream, engine: RememberingEngine) -> None:
    """Also if the latest was refused at once."""
    session = (await ask(stream, open=pb.OpenSession(model="forecast-electricity"))).opened.session
    engine.held = True
    await stream.write(pb.SessionRequest(id="0", append=pb.AppendSession(session=session, values=[1.0] * 100)))
    refused = await ask(stream, id="1", append=pb.AppendSession(session=session, values=[1.0] * 100, horizon=-1))
    await stream.write(pb.SessionRequest(id="2", fork=pb.ForkSession(session=session)))
    await until(lambda: len(engine.blocks) == 2)
    await asyncio.sleep(0.05)
    engine.answer(engine.blocks[1])
    answers = [await stream.read() for _ in range(2)]

    assert "INVALID_ARGUMENT" == refused.error.code
    assert [("0", 100), ("2", 100)] == [(one.id, one.appended.steps or one.opened.steps) for one in answers]


async def test_a_stream_takes_in_no_more_than_it_can_answer(stream, engine: RememberingEngine) -> None:
    """What is beyond waits at the client; all is answered in the end."""
    session = (await ask(stream, open=pb.OpenSession(model="forecast-electricity"))).opened.session
    engine.blocks.clear()
    engine.held = True

    async def send() -> None:
        for number in range(2000):
            await stream.write(pb.SessionRequest(append=pb.AppendSession(session=session, values=[number])))

    sending = asyncio.create_task(send())
    await until(lambda: sum(len(block.ids) for block in engine.blocks) >= 512)
    await asyncio.sleep(0.05)
    held, engine.held = list(engine.blocks), False
    assert 512 == sum(len(block.ids) for block in held)
    for block in held:
        engine.answer(block)
    assert list(range(1, 2001)) == [(await stream.read()).appended.steps for _ in range(2000)]
    await sending


async def test_a_stream_that_is_cancelled_drops_what_has_not_begun(stream, engine: RememberingEngine) -> None:
    """Its rows are taken out of the engine."""
    session = (await ask(stream, open=pb.OpenSession(model="forecast-electricity"))).opened.session
    engine.held = True
    await stream.write(pb.SessionRequest(append=pb.AppendSession(session=session, values=[1])))
    await until(lambda: len(engine.blocks) == 2)
    stream.cancel()
    await until(lambda: engine.cancelled)

    assert engine.blocks[1].ids.tolist() == engine.cancelled


async def test_a_server_that_drains_answers_what_it_took_in_and_ends_the_stream(
    stream, lifecycle: Lifecycle, engine: RememberingEngine
) -> None:
    """With UNAVAILABLE, which says that another replica may answer."""
    session = (await ask(stream, open=pb.OpenSession(model="forecast-electricity"))).opened.session
    engine.held = True
    await stream.write(pb.SessionRequest(id="last", append=pb.AppendSession(session=session, values=[1])))
    await until(lambda: len(engine.blocks) == 2)
    lifecycle.set(Phase.DRAINING)
    engine.answer(engine.blocks[1])

    assert "last" == (await stream.read()).id
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stream.read()
    assert grpc.StatusCode.UNAVAILABLE == raised.value.code()


async def test_many_sessions_in_one_call(channel, stream) -> None:
    """As over HTTP: in order, each alone; what is wrong with the call as a whole is a status with its field."""
    session = (await ask(stream, open=pb.OpenSession(model="forecast-electricity"))).opened.session
    append = channel.unary_unary(
        "/conveyor.v1.Conveyor/AppendSessions",
        request_serializer=pb.AppendSessionsRequest.SerializeToString,
        response_deserializer=pb.AppendSessionsResponse.FromString,
    )
    answer = await append(
        pb.AppendSessionsRequest(
            items=[
                pb.AppendItem(session=session, values=[1, 2]),
                pb.AppendItem(session=NOBODY, values=[1]),
                pb.AppendItem(session=session, values=[1], features=2),
                pb.AppendItem(session=session, values=[1], features=-2),
                pb.AppendItem(session=session, values=[3], expected_steps=2),
            ],
            horizon=1,
        )
    )

    assert [2, 0, 0, 0, 3] == [item.steps for item in answer.items]
    assert ["", "NOT_FOUND", "INVALID_ARGUMENT", "INVALID_ARGUMENT", ""] == [item.code for item in answer.items]
    assert [[2.0], [], [], [], [3.0]] == [list(item.result.mean.values) for item in answer.items]
    for request, code in [
        (pb.AppendSessionsRequest(), grpc.StatusCode.INVALID_ARGUMENT),
        (pb.AppendSessionsRequest(items=[pb.AppendItem()] * 1025), grpc.StatusCode.INVALID_ARGUMENT),
    ]:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await append(request)
        assert (code, True) == (raised.value.code(), "items" in (raised.value.details() or ""))
