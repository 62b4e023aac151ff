"""What every HTTP answer carries, whatever route it came from."""

from __future__ import annotations

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from conveyor.api.outcome import shown_error
from conveyor.api.request_id import accept_request_id
from conveyor.api.rest.errors import error_response
from conveyor.api.rest.lingering import drop_rest
from conveyor.lifecycle.phase import Lifecycle, Phase

__all__ = ["Envelope"]


class Envelope:
    """Gives each request an id and the time of its arrival, and each answer the id.

    What it wraps finds them in `scope["state"]`: `request_id`, `started_s` (monotonic seconds), and `headers`, the
    first value of each header by its name in small letters.
    While the server drains, every answer asks the client to close its connection. An exception that no route
    handled is answered as a fault of the server. An answer that is out before its request has been read is complete
    only once the rest of the request is, within bounds.

    Args:
        lifecycle: None for a port that is there to the very end.
    """

    def __init__(self, app: ASGIApp, lifecycle: Lifecycle | None = None) -> None:
        self._app = app
        self._lifecycle = lifecycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self._lifecycle)
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except Exception as fault:
            if exchange.answering:
                # Half an answer is out: only cutting the connection tells the client so, and the server does that.
                raise
            error = shown_error(fault, exchange.request_id)
            await error_response(error)(scope, exchange.receive, exchange.send)


class _Exchange:
    """One request and its answer, as they pass through the envelope."""

    __slots__ = ("_lifecycle", "_receive", "_send", "_unread", "answering", "request_id")

    def __init__(self, scope: Scope, receive: Receive, send: Send, lifecycle: Lifecycle | None) -> None:
        headers: dict[bytes, bytes] = dict(reversed(scope["headers"]))
        self._receive = receive
        self._send = send
        self._lifecycle = lifecycle
        given = headers.get(b"x-request-id")
        self.request_id = accept_request_id(None if given is None else given.decode("latin-1"))
        self.answering = False
        # Whether a client may still be sending. One that waits for permission has not begun.
        self._unread = (
            headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers
        ) and b"100-continue" not in headers.get(b"expect", b"").lower()
        state = scope.setdefault("state", {})
        state["request_id"] = self.request_id
        state["started_s"] = time.monotonic()
        state["headers"] = headers

    async def receive(self) -> Message:
        message = await self._receive()
        self._unread = message["type"] == "http.request" and message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.answering = True
            headers = [*message["headers"], (b"x-request-id", self.request_id.encode())]
            if self._lifecycle is not None and self._lifecycle.phase is Phase.DRAINING:
                headers = [header for header in headers if header[0] != b"connection"]
                headers.append((b"connection", b"close"))
            message["headers"] = headers
        elif self._unread and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await drop_rest(self.receive)
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)
