"""The short path of a small task request: from its head and body to the bytes of its answer, without ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response

from conveyor.api.outcome import shown_error
from conveyor.api.rest.errors import error_response
from conveyor.api.rest.incoming import Incoming, client_left
from conveyor.api.rest.tasks import Endpoint
from conveyor.errors import ConveyorError, DeadlineExceeded
from conveyor.lifecycle.alarms import Alarms
from conveyor.lifecycle.phase import Lifecycle, Phase

if TYPE_CHECKING:
    from conveyor.api.rest.protocol import Connection

__all__ = ["ShortExchange", "is_short"]

# A body that is received whole before anything else is done, so small that ten thousand connections may each have one.
_MOST_BYTES: Final = 16 * 1024

# After the deadline, so that the end of the wait for the engine comes first: admission learns from it.
_LATER_S: Final = 0.02

# What asks for more than an answer to a whole body.
_LONG: Final = frozenset((b"expect", b"transfer-encoding", b"upgrade"))


def is_short(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a request with these headers, names in small letters, can be answered by a `ShortExchange`."""
    size = headers.get(b"content-length", b"")
    return size.isdigit() and len(size) < 6 and int(size) <= _MOST_BYTES and _LONG.isdisjoint(headers)


class _NobodyWaits:
    """In the place of the event by which an ASGI application is told of more bytes."""

    def set(self) -> None:
        """Tells nobody."""


_NOBODY_WAITS = _NobodyWaits()


class ShortExchange:
    """One request of a connection and its answer; what uvicorn knows of it is what it knows of its own cycle.

    It runs the coroutine of its answer itself, which waits for the engine and, where items are large, for a thread: a
    task, with its turns of the event loop and its name, would take as long as reading the request. So there is no
    current task inside.
    """

    __slots__ = (
        "_awaited",
        "_connection",
        "_deadlines",
        "_endpoint",
        "_incoming",
        "_lifecycle",
        "_running",
        "disconnected",
        "keep_alive",
        "message_event",
        "response_complete",
    )

    def __init__(
        self,
        connection: Connection,
        endpoint: Endpoint[Any, Any],
        incoming: Incoming,
        lifecycle: Lifecycle,
        deadlines: Alarms[ShortExchange],
        *,
        keep_alive: bool,
    ) -> None:
        self._connection = connection
        self._endpoint = endpoint
        self._incoming = incoming
        self._lifecycle = lifecycle
        self._deadlines = deadlines
        self._running: Coroutine[Any, Any, bytes | Response] | None = None
        self._awaited: asyncio.Future[Any] | None = None
        self.keep_alive = keep_alive
        self.message_event = _NOBODY_WAITS
        self.response_complete = False
        self.disconnected = False

    def begin(self, body: bytes) -> None:
        """Begins to answer; returns once the request is in the engine, or its answer is on its way."""
        self._running = self._endpoint.reply(self._incoming, body)
        presence = self._incoming.presence
        if presence is not None:
            # Need not be taken back: what has ended can't be ended, and the next request sets its own.
            presence.on_leave = self._leave
        self._go_on(None)
        if presence is not None and presence.has_left:
            presence.leave()

    def end(self, reason: ConveyorError) -> None:
        """Ends the request, which is answered with `reason` if its client is there; nothing happens if it has ended, or
        has just been given what it waits for."""
        awaited = self._awaited
        if awaited is not None and (self.disconnected or not awaited.done()):
            self._awaited = None
            awaited.remove_done_callback(self._resume)
            awaited.cancel()
            self._deadlines.unset(self)
            self._incoming.ended = reason
            self._go_on(asyncio.CancelledError())

    def expire(self) -> None:
        """Ends the request because its time is up. The wait for the engine has its own end, at the deadline: this is
        for threads that are busy with others."""
        self.end(DeadlineExceeded("the deadline passed before the answer"))

    def _leave(self) -> None:
        self.disconnected = True
        self.end(client_left())

    def _resume(self, awaited: asyncio.Future[Any]) -> None:
        if awaited is self._awaited:
            self._awaited = None
            self._deadlines.unset(self)
            self._go_on(None)

    def _go_on(self, cancelled: asyncio.CancelledError | None) -> None:
        """Runs to where it waits next, or to its end."""
        running = self._running
        assert running is not None
        try:
            awaited = running.send(None) if cancelled is None else running.throw(cancelled)
        except StopIteration as ended:
            self._running = None
            self._answer(ended.value)
        except Exception as fault:
            self._running = None
            self._answer(error_response(shown_error(fault, self._incoming.request_id)))
        else:
            if awaited is None:
                # Gives way to others for one turn.
                self._awaited = asyncio.ensure_future(asyncio.sleep(0))
            else:
                # How a future says to a task that it is awaited, and a task that it has heard.
                awaited._asyncio_future_blocking = False
                self._awaited = awaited
            self._awaited.add_done_callback(self._resume)
            self._deadlines.set(self, self._incoming.due + _LATER_S)

    def _answer(self, reply: bytes | Response) -> None:
        connection = self._connection
        if connection.flow.write_paused and not self.disconnected:
            connection.later(self._send_in_turn(reply))
        else:
            # With the others that are answered in this turn of the loop.
            connection.loop.call_soon(self._send, reply)

    async def _send_in_turn(self, reply: bytes | Response) -> None:
        """Sends once the client has read what it was sent before."""
        await self._connection.flow.drain()
        self._send(reply)

    def _send(self, reply: bytes | Response) -> None:
        """Sends the answer. The connection keeps the exchange until the next one, but not its body."""
        connection = self._connection
        # Of a connection that is lost uvicorn tells the newest request alone, and this need not be it.
        if self.disconnected or connection.transport.is_closing():
            return
        raw = self._render(reply)
        self.response_complete = True
        connection.transport.write(raw)
        if not self.keep_alive:
            connection.transport.close()
        connection.on_response_complete()

    def _render(self, reply: bytes | Response) -> bytes:
        """Status line, headers and body."""
        if self._lifecycle.phase is Phase.DRAINING:
            self.keep_alive = False
        if isinstance(reply, bytes):
            status = b"200 OK"
            headers = b"content-length: %d\r\ncontent-type: application/json\r\n" % len(reply)
            body = reply
        else:
            status = b"%d %b" % (reply.status_code, _phrase(reply.status_code))
            others = [header for header in reply.raw_headers if header[0] != b"connection"]
            if len(others) < len(reply.raw_headers):
                self.keep_alive = False
            headers = b"".join(b"%b: %b\r\n" % header for header in others)
            body = bytes(reply.body)
        return b"HTTP/1.1 %b\r\n%b%bx-request-id: %b\r\n%b\r\n%b" % (
            status,
            self._connection.common_headers(),
            headers,
            self._incoming.request_id.encode(),
            b"" if self.keep_alive else b"connection: close\r\n",
            body,
        )


def _phrase(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""
