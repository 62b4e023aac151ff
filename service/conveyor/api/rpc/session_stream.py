"""The `Session` stream: many sessions in one, each message answered by itself."""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import grpc.aio
from google.protobuf.message import Message

from conveyor.api.deadline import LONGEST_TIMEOUT_S
from conveyor.api.offload import Offload
from conveyor.api.outcome import record_message, record_stream, show_failures, shown_error
from conveyor.api.rpc.parsing import parse_message
from conveyor.api.rpc.proto.conveyor.v1 import conveyor_pb2 as pb
from conveyor.api.rpc.running import RunningCalls
from conveyor.api.rpc.session_messages import (
    appended,
    appends_from,
    closed,
    error_response,
    observations_from,
    opened,
    start_from,
)
from conveyor.domain import SessionAdvance
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

# An append of few values is not asked by itself but with what else has come: what a request costs in the front end is
# then shared. So many groups may be under way before others wait for one of them to end, and no longer than this.
_FEW_VALUES: Final = 32
_GROUPS: Final = 2
_GATHER_S: Final = 0.004

_ITEM = re.compile(r"items\[\d+\]\.")

Context = grpc.aio.ServicerContext[bytes, bytes]


@dataclass(frozen=True, slots=True)
class StreamDoor:
    """What all streams share."""

    gateway: Gateway
    metrics: Metrics
    limits: Limits
    running: RunningCalls
    offload: Offload


# What the appends of a group have in common: the beginning of their sessions' ids, which is the model, the horizon, and
# the quantile levels.
_Kind = tuple[str, int, tuple[float, ...]]


@dataclass(frozen=True, slots=True, eq=False)
class _Small:
    """An append of few values."""

    id: str
    append: pb.AppendSession
    started_s: float


@dataclass(slots=True, eq=False)
class _Pending:
    """The messages of a session that are not in a group and not answered.

    is_posted: whether the latest is an append that has gone to the engine as it was read.
    """

    tasks: set[asyncio.Task[None]]
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
        self._pending: dict[str, _Pending] = {}
        self._small: dict[_Kind, list[_Small]] = {}
        # The group that the appends of a session gather in.
        self._kinds: dict[str, _Kind] = {}
        # With the sessions of each.
        self._groups: dict[asyncio.Task[None], set[str]] = {}
        self._gathering: asyncio.Handle | None = None

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
            self._small.clear()
            for task in (writing, *self._tasks, *self._groups):
                task.cancel()
            if self._gathering is not None:
                self._gathering.cancel()
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
        before = self._pending.get(session)
        if kind == "append" and before is None and len(message.append.values) <= _FEW_VALUES:
            self._gather(_Small(message.id, message.append, started_s))
            return
        # What was sent before goes first, and a fork or a close is told how it has ended.
        self._send_groups()
        at_once = kind == "append" and (before is None or before.is_posted)
        wait_for = set()
        if kind in ("fork", "close"):
            wait_for = {group for group, sessions in self._groups.items() if session in sessions}
        if before is not None and not at_once:
            wait_for |= before.tasks
        task = asyncio.create_task(self._handle(message, kind, wait_for, started_s))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if session:
            pending = self._pending.setdefault(session, _Pending(set(), at_once))
            pending.tasks.add(task)
            pending.is_posted = at_once
            task.add_done_callback(lambda done: self._forget(session, done))

    def _forget(self, session: str, done: asyncio.Task[None]) -> None:
        tasks = self._pending[session].tasks
        tasks.remove(done)
        if not tasks:
            del self._pending[session]

    def _gather(self, small: _Small) -> None:
        """Puts an append into the group that it goes with."""
        append = small.append
        kind = append.session.rpartition(".")[0], append.horizon, tuple(append.quantiles)
        if self._kinds.setdefault(append.session, kind) != kind:
            # In its own group it could overtake what the session was sent before.
            self._send_groups()
            self._kinds[append.session] = kind
        self._small.setdefault(kind, []).append(small)
        if self._gathering is None:
            loop = asyncio.get_running_loop()
            if len(self._groups) < _GROUPS:
                self._gathering = loop.call_soon(self._send_groups)
            else:
                self._gathering = loop.call_later(_GATHER_S, self._send_groups)

    def _send_groups(self) -> None:
        """Sets about what has gathered."""
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        groups, self._small = self._small, {}
        self._kinds.clear()
        for (_, horizon, quantiles), group in groups.items():
            task = asyncio.create_task(self._advance(group, horizon or None, list(quantiles) or None))
            self._groups[task] = {small.append.session for small in group}
            task.add_done_callback(self._on_group)

    def _on_group(self, group: asyncio.Task[None]) -> None:
        del self._groups[group]
        if self._small:
            self._send_groups()

    async def _advance(self, group: Sequence[_Small], horizon: int | None, quantiles: Sequence[float] | None) -> None:
        """Answers appends of few values to sessions of one model."""
        call = Call("forecast", "grpc", self._request_id, NO_DEADLINE)
        appends = appends_from([small.append for small in group])
        refusal: ConveyorError | None = None
        try:
            advances = await self._door.gateway.sessions.append_many(call, appends, horizon, quantiles)
            show_failures(advances.failures, self._request_id)
        except Exception as fault:
            refusal = shown_error(fault, self._request_id)
        else:
            steps, expires_in_s = advances.steps.tolist(), advances.expires_in_s.tolist()
        for item, small in enumerate(group):
            error = refusal or advances.failures.get(item)
            if error is None:
                session, result = small.append.session, advances.results.get(item)
                response = appended(small.id, SessionAdvance(session, steps[item], expires_in_s[item], result))
            else:
                response = error_response(small.id, error, _ITEM.sub("", error.field or ""))
            record_message(self._door.metrics, call, Code.OK if error is None else error.code, small.started_s)
            self._answers.append(response.SerializeToString())
        self._to_write.set()

    async def _handle(
        self, message: pb.SessionRequest, kind: str | None, wait_for: set[asyncio.Task[None]], started_s: float
    ) -> None:
        """Answers one message."""
        call = Call("forecast", "grpc", self._request_id, NO_DEADLINE)
        code = Code.CANCELLED
        try:
            if wait_for:
                await asyncio.wait(wait_for)
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
