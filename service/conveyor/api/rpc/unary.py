"""Unary calls: each message in, through the gateway, and a message or a status out.

Handlers take and give bytes: a message that gRPC parses itself fails as a fault of the server, without a field.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar

import grpc.aio
from google.protobuf.message import Message

from conveyor.api.deadline import LONGEST_TIMEOUT_S
from conveyor.api.offload import INLINE_BYTES, Offload, forecast_size, num_values
from conveyor.api.outcome import failed, record_outcome, shown_error
from conveyor.api.priority import PRIORITY_HEADER, priority_of
from conveyor.api.request_id import accept_request_id
from conveyor.api.rpc.errors import REQUEST_ID_KEY, STATUS, error_metadata
from conveyor.api.rpc.parsing import parse_message
from conveyor.api.rpc.running import RunningCalls
from conveyor.api.shown import clamp
from conveyor.api.small import Ask, SmallRequest, Together
from conveyor.domain import Answer, Forecast, Sentiment, Tagging
from conveyor.errors import Cancelled, Code, ConveyorError, DeadlineExceeded, PayloadTooLarge
from conveyor.gateway.advancing import Advances
from conveyor.gateway.call import Call
from conveyor.gateway.limits import Limits
from conveyor.spec import Task
from conveyor.telemetry.metrics import Metrics

__all__ = ["Context", "Door", "Method", "Reading", "refuse", "request_id_of"]

RequestT = TypeVar("RequestT", bound=Message)
ResultT = TypeVar("ResultT", Sentiment, Tagging, Forecast)
AnswerT = TypeVar("AnswerT", Answer[Sentiment], Answer[Tagging], Answer[Forecast], Advances)
AwaitableT = TypeVar("AwaitableT", bound=Awaitable[Any], covariant=True)

Context = grpc.aio.ServicerContext[bytes, bytes]

_PRIORITY_KEY = PRIORITY_HEADER.lower()

# A caller tells how much time is left, so its deadline is before ours by as long as that was on its way, and it leaves
# then: who leaves so shortly before our deadline has met its own.
_TRANSIT_S = 0.05


@dataclass(frozen=True, slots=True)
class Door:
    """What the calls share."""

    metrics: Metrics
    limits: Limits
    running: RunningCalls
    offload: Offload
    together: Together


@dataclass(frozen=True, slots=True)
class Reading(Generic[AwaitableT]):
    """A request that was read.

    ask: what is left: to ask the gateway, on the event loop.
    field: the name in the message of a field that the gateway names in JSON notation.
    """

    ask: Callable[[Call], AwaitableT]
    field: Callable[[str], str] = str


class _Arrival:
    """What came with a call beside its message."""

    __slots__ = ("_metadata", "deadline", "request_id", "started_s")

    def __init__(self, context: Context, limits: Limits) -> None:
        self.started_s = time.monotonic()
        self._metadata = _metadata(context)
        self.request_id = accept_request_id(_text(self._metadata, REQUEST_ID_KEY))
        remaining_s: float | None = context.time_remaining()
        if remaining_s is None:
            remaining_s = limits.request_timeout_s
        self.deadline = self.started_s + min(remaining_s, LONGEST_TIMEOUT_S)

    def priority(self) -> int:
        """How urgent the call is.

        Raises:
            InvalidArgument: Its metadata say nothing that is accepted.
        """
        return priority_of(_text(self._metadata, _PRIORITY_KEY))


@dataclass(frozen=True, slots=True)
class Method(Generic[RequestT, AnswerT]):
    """One method: how its message is read, and what answers it.

    is_task: whether what answers is a `Question`.
    """

    task: Task
    request_type: type[RequestT]
    reading: Callable[[RequestT], Reading[Awaitable[AnswerT]]]
    response: Callable[[AnswerT], Message]
    door: Door
    is_task: bool = True

    async def answer(self, raw: bytes, context: Context) -> bytes:
        """Answers one call."""
        arrival = _Arrival(context, self.door.limits)
        call = Call(self.task, "grpc", arrival.request_id, arrival.deadline)
        reply: bytes | ConveyorError | None
        if self.is_task and len(raw) <= INLINE_BYTES:
            small = _SmallCall(self, arrival, call, raw)
            self.door.running.add(small)
            small.start()
            try:
                reply = await small.replied
            except asyncio.CancelledError:
                small.leave()
                raise
            finally:
                self.door.running.discard(small)
            if reply is None:
                reply = await self._reply_in_task(arrival, call, lambda: self._answer(small.handed_over(), call))
        else:
            reply = await self._reply_in_task(arrival, call, lambda: self._read_and_answer(raw, arrival, call))
        if isinstance(reply, ConveyorError):
            await refuse(context, reply, arrival.request_id)
        context.set_trailing_metadata(((REQUEST_ID_KEY, arrival.request_id),))
        return reply

    async def _reply_in_task(
        self, arrival: _Arrival, call: Call, work: Callable[[], Awaitable[bytes]]
    ) -> bytes | ConveyorError:
        code = Code.INTERNAL
        try:
            with self.door.running.one_until(call.deadline):
                payload = await work()
            code = Code.OK
        except asyncio.CancelledError:
            code = left(call).code
            raise
        except Exception as fault:
            error = shown_error(fault, call.request_id)
            code = error.code
            return error
        finally:
            record_outcome(self.door.metrics, call, code, arrival.started_s)
        return payload

    async def _read_and_answer(self, raw: bytes, arrival: _Arrival, call: Call) -> bytes:
        # Before it takes room that others need.
        self.set_terms(raw, arrival, call)
        return await self._answer(await self.door.offload.read(len(raw), lambda: self.read(raw)), call)

    async def _answer(self, reading: Reading[Awaitable[AnswerT]], call: Call) -> bytes:
        try:
            answer = await reading.ask(call)
        except ConveyorError as error:
            raise _renamed(error, reading.field) from None
        size = num_values(answer) if isinstance(answer, Answer) else sum(map(forecast_size, answer.results.values()))
        return await self.door.offload.write(size, lambda: self.write(answer))

    def set_terms(self, raw: bytes, arrival: _Arrival, call: Call) -> None:
        """Takes over how urgent a call is.

        Raises:
            InvalidArgument: What its metadata say of that is not what is accepted.
            PayloadTooLarge: Its message is over the limit.
        """
        call.priority = arrival.priority()
        limit_bytes = self.door.limits.body_bytes
        if len(raw) > limit_bytes:
            raise PayloadTooLarge(f"the message is too large; at most {limit_bytes} bytes are accepted")

    def read(self, raw: bytes) -> Reading[Awaitable[AnswerT]]:
        """A message, checked; raises InvalidArgument if it is not what the method takes."""
        return self.reading(parse_message(self.request_type, raw))

    def write(self, answer: AnswerT) -> bytes:
        """The message of an answer."""
        return self.response(answer).SerializeToString()


class _SmallCall(SmallRequest[bytes | ConveyorError]):
    """A call that needs gRPC's task alone.

    replied: what is to be sent; None if a task is to answer what is `handed_over`.
    """

    __slots__ = ("_arrival", "_field", "_method", "replied")

    def __init__(self, method: Method[Any, Any], arrival: _Arrival, call: Call, raw: bytes) -> None:
        super().__init__(method.door.together, method.door.metrics, call, raw, arrival.started_s)
        self._method = method
        self._arrival = arrival
        self._field: Callable[[str], str] = str
        self.replied: asyncio.Future[bytes | ConveyorError | None] = asyncio.get_running_loop().create_future()

    def leave(self) -> None:
        """Ends the call, whose caller has left, or stopped waiting."""
        super().end(left(self._call))

    def end(self, reason: ConveyorError) -> None:
        """Ends the call; one that a task is about to take over, through that task."""
        if self.replied.done():
            self._ended = reason
        else:
            super().end(reason)

    def handed_over(self) -> Reading[Any]:
        """What is left to be done of a call that is not small after all.

        Raises:
            ConveyorError: It was ended before the task had its turn.
        """
        question = self.hand_over()
        if self._ended is not None:
            question.drop(self._ended)
            raise self._ended
        return Reading(lambda _: question, self._field)

    def _read(self, raw: bytes) -> Ask[Any]:
        self._method.set_terms(raw, self._arrival, self._call)
        reading: Reading[Any] = self._method.read(raw)
        self._field = reading.field
        return reading.ask

    def _await(self) -> None:
        # A call that was cancelled in this turn will be left.
        if not self.replied.done():
            self.replied.set_result(None)

    def _write(self, answer: Answer[Any]) -> bytes:
        return self._method.write(answer)

    def _refusal(self, error: ConveyorError) -> ConveyorError:
        return _renamed(error, self._field)

    def _send(self, reply: bytes | ConveyorError) -> None:
        if not self.replied.done():
            self.replied.set_result(reply)

    def _cut_off(self) -> None:
        self._send(failed(self._call.request_id))


def left(call: Call) -> ConveyorError:
    """The end of a call whose handler gRPC has cancelled: it does so when the caller leaves, and at its deadline."""
    if time.monotonic() < call.deadline - _TRANSIT_S:
        return Cancelled("the caller left")
    return DeadlineExceeded("the deadline passed before the answer")


async def refuse(context: Context, error: ConveyorError, request_id: str) -> NoReturn:
    """Ends a call with an error."""
    await context.abort(STATUS[type(error)], clamp(error.message), error_metadata(error, request_id))


def request_id_of(context: Context) -> str:
    """The request id that came with a call, or a new one."""
    return accept_request_id(_text(_metadata(context), REQUEST_ID_KEY))


def _renamed(error: ConveyorError, field: Callable[[str], str]) -> ConveyorError:
    """The error, about a field of the message."""
    if error.field is not None:
        error.field = field(error.field)
    return error


def _metadata(context: Context) -> Mapping[str, str | bytes]:
    return dict(context.invocation_metadata() or ())


def _text(metadata: Mapping[str, str | bytes], key: str) -> str | None:
    given = metadata.get(key)
    return given if isinstance(given, str) else None
