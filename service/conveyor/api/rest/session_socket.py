"""One session over a WebSocket: each message an append, each answered, in order."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import suppress
from typing import Final

from pydantic_core import from_json, to_json
from starlette.types import Receive, Scope, Send

from conveyor.api.deadline import Lifetime
from conveyor.api.outcome import record_message, record_stream, shown_error
from conveyor.api.request_id import accept_request_id
from conveyor.api.rest.door import Door
from conveyor.api.rest.errors import error_response
from conveyor.api.rest.session_answers import write_advance
from conveyor.api.rest.session_bodies import Append, read_append
from conveyor.api.shown import clamp
from conveyor.errors import Code, ConveyorError, NotFound, QueueFull, Unavailable
from conveyor.gateway.call import Call
from conveyor.gateway.gateway import Gateway
from conveyor.lifecycle.phase import Lifecycle, Phase
from conveyor.wire.messages import NO_DEADLINE

__all__ = ["SessionSockets"]

# Messages of a socket that are read and not yet answered. What comes beyond stays in the connection, and TCP tells the
# client to wait.
_MOST_UNANSWERED: Final = 64

# RFC 6455, section 7.4.1, and the registry it founded.
_NORMAL: Final = 1000
_GOING_AWAY: Final = 1001
_REFUSED: Final = 1008
_OVERLOADED: Final = 1013

# What sending raises once the client has left, and once uvicorn has closed by itself: over a frame that is none or is
# too large, or for want of a pong.
_GONE: Final = (OSError, RuntimeError)


class SessionSockets:
    """What answers `/v1/sessions/{id}/stream`, as an ASGI application for WebSockets. Event loop only.

    What was read is applied also if the client has left; its session stays until its idle time is over.
    """

    def __init__(self, gateway: Gateway, door: Door, lifecycle: Lifecycle) -> None:
        self._gateway = gateway
        self._door = door
        self._reading: set[Lifetime] = set()
        lifecycle.watch(lambda phase: self._end() if phase is Phase.DRAINING else None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one socket until either side closes it; there is none on any other path."""
        started_s = time.monotonic()
        given = dict(reversed(scope["headers"])).get(b"x-request-id")
        request_id = accept_request_id(None if given is None else given.decode("latin-1"))
        session = _session_of(scope["path"])
        if session is None:
            error = NotFound(f"there is no WebSocket at {scope['path']}")
            await error_response(error, headers={"X-Request-Id": request_id})(scope, receive, send)
            return
        call = Call("forecast", "ws", request_id, NO_DEADLINE)
        socket = _Socket(self._gateway, self._door, session, call, receive, send)
        code = Code.CANCELLED
        try:
            await receive()
            await send({"type": "websocket.accept", "headers": [(b"x-request-id", request_id.encode())]})
            code = await self._serve(socket)
        finally:
            socket.abandon()
            record_stream(call, code, started_s)

    async def _serve(self, socket: _Socket) -> Code:
        try:
            await socket.greet()
            with Lifetime(NO_DEADLINE) as lifetime:
                self._reading.add(lifetime)
                try:
                    await socket.read()
                finally:
                    self._reading.discard(lifetime)
        except ConveyorError as error:
            await socket.finish(error)
            return error.code
        await socket.finish(None)
        return Code.OK

    def _end(self) -> None:
        for lifetime in self._reading:
            lifetime.end(Unavailable("the server is shutting down; another replica may answer", retry_after_s=1.0))


class _Socket:
    """One socket: messages are read and begun one after the other, and their answers sent in the same order."""

    def __init__(self, gateway: Gateway, door: Door, session: str, call: Call, receive: Receive, send: Send) -> None:
        self._gateway = gateway
        self._door = door
        self._session = session
        self._call = call
        self._receive = receive
        self._send = send
        self._answers: deque[asyncio.Future[bytes]] = deque()
        self._to_send = asyncio.Event()
        self._room = asyncio.Event()
        self._read_all = False
        self._left = False
        self._sending = asyncio.create_task(self._send_answers())

    async def greet(self) -> None:
        """Makes sure that there is the session.

        Raises:
            ConveyorError: There is not, or it can't be asked now; was told to the client.
        """
        try:
            await self._gateway.sessions.tell(self._call, self._session)
        except Exception as fault:
            error = shown_error(fault, self._call.request_id)
            await self._send_text(_error_body(None, error))
            raise error from fault

    async def read(self) -> None:
        """Takes messages in until the client closes."""
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                self._left = True
                return
            text = message.get("text")
            await self._begin(text.encode() if text is not None else message["bytes"])
            if len(self._answers) >= _MOST_UNANSWERED:
                self._room.clear()
                await self._room.wait()

    async def finish(self, error: ConveyorError | None) -> None:
        """Waits for the answers, then closes, if the client has not."""
        self._read_all = True
        self._to_send.set()
        await self._sending
        if not self._left:
            with suppress(*_GONE):
                await self._send({"type": "websocket.close", "code": _close_code(error), "reason": _reason(error)})

    def abandon(self) -> None:
        """Drops what has not begun, where the server could not wait for `finish`."""
        self._sending.cancel()
        for answer in self._answers:
            answer.cancel()

    async def _begin(self, raw: bytes) -> None:
        """Parses a message and sets about it. Large ones hold the socket up, so that none overtakes them."""
        started_s = time.monotonic()
        loop = asyncio.get_running_loop()
        try:
            limits = self._door.limits
            append = await self._door.offload.read(len(raw), lambda: read_append(raw, limits, message=True))
        except ConveyorError as error:
            record_message(self._door.metrics, self._call, error.code, started_s)
            refused: asyncio.Future[bytes] = loop.create_future()
            refused.set_result(_error_body(_id_of(raw), error))
            self._answers.append(refused)
        else:
            self._answers.append(loop.create_task(self._answer(append, started_s)))
        self._to_send.set()

    async def _answer(self, append: Append, started_s: float) -> bytes:
        call = Call("forecast", "ws", self._call.request_id, NO_DEADLINE)
        code = Code.CANCELLED
        try:
            advance = await self._gateway.sessions.append(
                call,
                self._session,
                append.observations,
                append.horizon,
                append.quantiles,
                append.expected_steps,
            )
            code = Code.OK
            return _with_id(append.id, write_advance(advance))
        except Exception as fault:
            error = shown_error(fault, call.request_id)
            code = error.code
            return _error_body(append.id, error)
        finally:
            record_message(self._door.metrics, call, code, started_s)

    async def _send_answers(self) -> None:
        """Sends each answer when it and those before it are there, until all that was read is answered."""
        while True:
            while self._answers:
                answer = await self._answers[0]
                if not self._left:
                    await self._send_text(answer)
                self._answers.popleft()
                self._room.set()
            if self._read_all:
                return
            self._to_send.clear()
            await self._to_send.wait()

    async def _send_text(self, body: bytes) -> None:
        try:
            await self._send({"type": "websocket.send", "text": body.decode()})
        except _GONE:
            # The reader is told so too.
            self._left = True


def _session_of(path: str) -> str | None:
    match path.split("/"):
        case ["", "v1", "sessions", session, "stream"] if session:
            return session
    return None


def _error_body(message_id: str | int | None, error: ConveyorError) -> bytes:
    body = {"error": clamp(error.message), "code": error.code.value}
    if error.field is not None:
        body["field"] = clamp(error.field)
    return _with_id(message_id, to_json(body))


def _with_id(message_id: str | int | None, body: bytes) -> bytes:
    return body if message_id is None else b'{"id":%b,%b' % (to_json(message_id), body[1:])


def _id_of(raw: bytes) -> str | int | None:
    """The id of a message that is otherwise not acceptable."""
    try:
        message = from_json(raw)
    except ValueError:
        return None
    given = message.get("id") if isinstance(message, dict) else None
    return given if isinstance(given, str | int) and not isinstance(given, bool) else None


def _close_code(error: ConveyorError | None) -> int:
    if error is None:
        return _NORMAL
    if isinstance(error, Unavailable):
        return _GOING_AWAY
    return _OVERLOADED if isinstance(error, QueueFull) else _REFUSED


def _reason(error: ConveyorError | None) -> str:
    """As long as a close frame can hold, which is 123 bytes."""
    return "" if error is None else error.message.encode()[:120].decode(errors="ignore")
