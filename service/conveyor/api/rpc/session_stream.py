"""The `Session` stream: many sessions in one, each message answered by itself."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from typing import Final

import grpc.aio
from google.protobuf.message import Message

from conveyor.api.deadline import LONGEST_TIMEOUT_S
from conveyor.api.offload import Offload
from conveyor.api.outcome import record_message, record_stream, shown_error
from conveyor.api.rpc.parsing import parse_message
from conveyor.api.rpc.proto.conveyor.v1 import conveyor_pb2 as pb
from conveyor.api.rpc.running import RunningCalls
from conveyor.api.rpc.session_messages import (
    appended,
    closed,
    error_response,
    observations_from,
    opened,
    start_from,
)
from conveyor.errors import Code, ConveyorError, InvalidArgument, PayloadTooLarge
from conveyor.gateway.call import Call
from conveyor.gateway.gateway import Gateway
from conveyor.gateway.limits import Limits
from conveyor.telemetry.metrics import Metrics
from conveyor.wire.messages import NO_DEADLINE

__all__ = ["SessionStream", "StreamDoor"]

# Messages of a stream that are read and not yet answered. What comes beyond stays in the connection, and HTTP/2 tells
# the client to wait.
_MOST_UNANSWERED: Final = 512

Context = grpc.aio.ServicerContext[bytes, bytes]


@dataclass(frozen=True, slots=True)
class StreamDoor:
    """What all streams share."""

    gateway: Gateway
    metrics: Metrics
    limits: Limits
    running: RunningCalls
    offload: Offload


@dataclass(slots=True, eq=False)
class _Last:
    """The latest message of a session. is_posted: whether its append has gone to the engine as it was read."""

    task: asyncio.Task[None]
    is_posted: bool


class SessionStream:
    """One stream, from its first message to its end. Event loop only.

    Messages of one session are done in the order in which they come, those of different sessions do not wait for each
    other. What has not begun when the client leaves is dropped.
    """

    def __init__(self, door: StreamDoor, context: Context, request_id: str) -> None:
        self._door = door
        self._context = context
        self._request_id = request_id
        self._unanswered = 0
        self._answers: deque[bytes] = deque()
        self._to_write = asyncio.Event()
        self._room = asyncio.Event()
        self._read_all = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._last: dict[str, _Last] = {}

    async def serve(self) -> ConveyorError | None:
        """Answers until the client has sent all, then returns None; or what ended the stream before."""
        started_s = time.monotonic()
        code = Code.CANCELLED
        writing = asyncio.create_task(self._write())
        try:
            error = await self._read()
            self._read_all = True
            self._to_write.set()
            with self._door.running.one_until(self._deadline(started_s)):
                await writing
            code = Code.OK if error is None else error.code
        except ConveyorError as fault:
            error, code = fault, fault.code
        finally:
            for task in (writing, *self._tasks):
                task.cancel()
            record_stream(Call("forecast", "grpc", self._request_id, NO_DEADLINE), code, started_s)
        return error

    async def _read(self) -> ConveyorError | None:
        """Takes messages in until there are no more, or none are wanted any more; returns why."""
        try:
            with self._door.running.stream_until(self._deadline(time.monotonic())):
                while isinstance(raw := await self._context.read(), bytes):
                    if self._unanswered >= _MOST_UNANSWERED:
                        self._room.clear()
                        await self._room.wait()
                    self._unanswered += 1
                    await self._begin(raw)
        except ConveyorError as error:
            return error
        return None

    def _deadline(self, now: float) -> float:
        remaining_s: float | None = self._context.time_remaining()
        return NO_DEADLINE if remaining_s is None else now + min(remaining_s, LONGEST_TIMEOUT_S)

    async def _begin(self, raw: bytes) -> None:
        """Parses a message and sets about it. Large ones hold the stream up, so that none overtakes them."""
        started_s = time.monotonic()
        try:
            limit_bytes = self._door.limits.body_bytes
            if len(raw) > limit_bytes:
                raise PayloadTooLarge(f"the message is too large; at most {limit_bytes} bytes are accepted")
            message = await self._door.offload.read(len(raw), lambda: parse_message(pb.SessionRequest, raw))
        except ConveyorError as error:
            self._post(error_response("", error))
            return
        kind = message.WhichOneof("request")
        session = getattr(message, kind).session if kind in ("append", "fork", "close") else ""
        before = self._last.get(session)
        at_once = kind == "append" and (before is None or before.is_posted)
        wait_for = None if at_once or before is None else before.task
        task = asyncio.create_task(self._handle(message, kind, wait_for, started_s))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if session:
            last = self._last[session] = _Last(task, at_once)
            task.add_done_callback(lambda _: self._forget(session, last))

    def _forget(self, session: str, last: _Last) -> None:
        if self._last.get(session) is last:
            del self._last[session]

    async def _handle(
        self, message: pb.SessionRequest, kind: str | None, wait_for: asyncio.Task[None] | None, started_s: float
    ) -> None:
        """Answers one message."""
        call = Call("forecast", "grpc", self._request_id, NO_DEADLINE)
        code = Code.CANCELLED
        try:
            if wait_for is not None:
                await asyncio.wait((wait_for,))
            response = await self._answer(message, kind, call)
            code = Code.OK
        except Exception as fault:
            error = shown_error(fault, self._request_id)
            code = error.code
            response = error_response(message.id, error)
        finally:
            record_message(self._door.metrics, call, code, started_s)
        self._post(response)

    async def _answer(self, message: pb.SessionRequest, kind: str | None, call: Call) -> pb.SessionResponse:
        sessions = self._door.gateway.sessions
        match kind:
            case "append":
                append = message.append
                return appended(
                    message.id,
                    await sessions.append(
                        call,
                        append.session,
                        observations_from(append),
                        append.horizon or None,
                        list(append.quantiles) or None,
                        append.expected_steps if append.HasField("expected_steps") else None,
                    ),
                )
            case "open":
                history, start = observations_from(message.open), start_from(message.open)
                frequency = message.open.frequency or None
                return opened(message.id, await sessions.open(call, message.open.model, history, start, frequency))
            case "fork":
                return opened(message.id, await sessions.fork(call, message.fork.session))
            case "close":
                return closed(message.id, await sessions.close(call, message.close.session))
        raise InvalidArgument("the message holds none of open, append, fork and close", field="request")

    def _post(self, response: Message) -> None:
        self._answers.append(response.SerializeToString())
        self._to_write.set()

    async def _write(self) -> None:
        """Sends answers as they come, until all that was read is answered."""
        while True:
            while self._answers:
                await self._context.write(self._answers.popleft())
                self._unanswered -= 1
                self._room.set()
            if self._read_all and not self._unanswered:
                return
            self._to_write.clear()
            await self._to_write.wait()
