"""The short path of a small task request: from its head and body to the bytes of its answer, without ASGI or a task."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response

from conveyor.api.outcome import stopped
from conveyor.api.rest.errors import error_response
from conveyor.api.rest.incoming import Incoming, client_left
from conveyor.api.rest.tasks import Endpoint
from conveyor.api.small import Ask, SmallRequest
from conveyor.domain import Answer
from conveyor.errors import ConveyorError
from conveyor.gateway.question import Question
from conveyor.lifecycle.phase import Lifecycle, Phase

if TYPE_CHECKING:
    from conveyor.api.rest.protocol import Connection

__all__ = ["ShortExchange", "is_short"]

# A body that is received whole before anything else is done, so small that ten thousand connections may each have one.
_MOST_BYTES: Final = 16 * 1024

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


class ShortExchange(SmallRequest[bytes | Response]):
    """One request of a connection and its answer; what uvicorn knows of it is what it knows of its own cycle."""

    __slots__ = (
        "_connection",
        "_endpoint",
        "_incoming",
        "_lifecycle",
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
        body: bytes,
        lifecycle: Lifecycle,
        *,
        keep_alive: bool,
    ) -> None:
        door = endpoint.door
        super().__init__(
            connection.together, door.metrics, door.call(endpoint.task, incoming), body, incoming.started_s
        )
        self._connection = connection
        self._endpoint = endpoint
        self._incoming = incoming
        self._lifecycle = lifecycle
        self.keep_alive = keep_alive
        self.message_event = _NOBODY_WAITS
        self.response_complete = False
        self.disconnected = False
        incoming.on_leave(self._leave)

    def _read(self, raw: bytes) -> Ask[Any]:
        self._endpoint.door.set_terms(self._call, self._incoming)
        return self._endpoint.read(raw)

    def _leave(self) -> None:
        self.disconnected = True
        self.end(client_left())

    def _await(self) -> None:
        question = self.hand_over()
        task = self._connection.later(self._answer_in_task(question))
        # A task may be cancelled before it awaits the question.
        task.add_done_callback(lambda _: question.drop(stopped()))

    async def _answer_in_task(self, question: Question[Any]) -> None:
        await self._send_in_turn(await self._endpoint.finish(self._call, self._incoming, question))

    def _write(self, answer: Answer[Any]) -> bytes:
        return self._endpoint.write(answer)

    def _refusal(self, error: ConveyorError) -> Response:
        return error_response(error)

    def _send(self, reply: bytes | Response) -> None:
        if self._connection.flow.write_paused and not self.disconnected:
            self._connection.later(self._send_in_turn(reply))
        else:
            self._send_now(reply)

    async def _send_in_turn(self, reply: bytes | Response) -> None:
        """Sends once the client has read what it was sent before."""
        if not self.disconnected:
            await self._connection.flow.drain()
        self._send_now(reply)

    def _send_now(self, reply: bytes | Response) -> None:
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

    def _cut_off(self) -> None:
        self._connection.transport.abort()

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
