"""Unary calls between the steps that small ones take together and the tasks of those that are not small."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, cast

import grpc
import pytest
from fake_gateway import FakeGateway, FakeQuestion

from conveyor.api.rpc.calls import SERVICE, service_handler
from conveyor.api.rpc.proto.conveyor.v1 import conveyor_pb2 as pb
from conveyor.api.rpc.running import RunningCalls
from conveyor.api.rpc.unary import left
from conveyor.errors import Cancelled, ConveyorError, DeadlineExceeded
from conveyor.gateway.call import Call
from conveyor.gateway.limits import Limits

pytestmark = pytest.mark.anyio


class Aborted(Exception):
    """How a handler ends that gives a status."""


class Context:
    """Of a call without metadata or deadline."""

    def __init__(self) -> None:
        self.status: grpc.StatusCode | None = None

    def invocation_metadata(self) -> Sequence[tuple[str, str]]:
        """None."""
        return ()

    def time_remaining(self) -> None:
        """For ever."""

    async def abort(self, status: grpc.StatusCode, *_: object) -> NoReturn:
        """Keeps the status."""
        self.status = status
        raise Aborted


async def test_a_stop_ends_a_call_that_a_task_is_about_to_take_over(metrics, request_count, monkeypatch) -> None:
    """Between the last step that it took with others and the task's first turn."""
    running, dropped = RunningCalls(), []

    def begin(_: FakeQuestion[Any], __: Callable[[], None]) -> bool:
        asyncio.get_running_loop().call_soon(running.stop)
        return False

    drop = FakeQuestion.drop
    monkeypatch.setattr(FakeQuestion, "begin", begin)
    monkeypatch.setattr(FakeQuestion, "drop", lambda *arguments: (dropped.append(arguments), drop(*arguments)))
    handler = service_handler(cast(Any, FakeGateway(is_small=False)), metrics, Limits(), running)
    details = cast(grpc.HandlerCallDetails, type("Details", (), {"method": f"/{SERVICE}/Sentiment"}))
    method = handler.service(details)
    context = Context()
    async with asyncio.timeout(10):
        with pytest.raises(Aborted):
            await method.unary_unary(pb.SentimentRequest(inputs=["wait"]).SerializeToString(), context)

    assert grpc.StatusCode.UNAVAILABLE == context.status
    assert 1 == request_count(protocol="grpc", code="UNAVAILABLE")
    assert 1 == len(dropped)


@pytest.mark.parametrize(("before_s", "reason"), [(0.02, DeadlineExceeded), (60.0, Cancelled)])
async def test_a_caller_that_leaves_just_before_its_deadline_has_met_it(
    before_s: float, reason: type[ConveyorError]
) -> None:
    """Its own clock runs out first: what is left of its deadline takes a moment to arrive."""
    assert isinstance(left(Call("sentiment", "grpc", "r", time.monotonic() + before_s)), reason)
