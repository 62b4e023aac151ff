"""The short path of a small task request: from its head and body to the bytes of its answer, without ASGI."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response

from conveyor.api.outcome import shown_error
from conveyor.api.rest.errors import error_response
from conveyor.api.rest.incoming import Incoming
from conveyor.api.rest.tasks import Endpoint
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
    return size.isdigit() and len(size) < 6 and int(size) <= _MOST_BYTES and headers.keys().isdisjoint(_LONG)


class _NobodyWaits:
    """In the place of the event by which an ASGI application is told of more bytes."""

    def set(self) -> None:
        """Tells nobody."""


class ShortExchange:
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
        lifecycle: Lifecycle,
        *,
        keep_alive: bool,
    ) -> None:
        self._connection = connection
        self._endpoint = endpoint
        self._incoming = incoming
        self._lifecycle = lifecycle
        self.keep_alive = keep_alive
        self.message_event = _NobodyWaits()
        self.response_complete = False
        self.disconnected = False

    async def answer(self, body: bytes) -> None:
        """Answers the request. The connection keeps the exchange until the next one, but not its body."""
        try:
            reply = await self._endpoint.reply(self._incoming, body)
        except Exception as fault:
            reply = error_response(shown_error(fault, self._incoming.request_id))
        connection = self._connection
        if connection.flow.write_paused and not self.disconnected:
            await connection.flow.drain()
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
