"""What every HTTP answer carries, whatever route it came from."""

from __future__ import annotations

import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from conveyor.api.outcome import shown_error
from conveyor.api.request_id import accept_request_id
from conveyor.api.rest.errors import error_response
from conveyor.api.rest.lingering import drop_rest
from conveyor.lifecycle.phase import Lifecycle, Phase

__all__ = ["Envelope"]


class Envelope:
    """Gives each request an id and the time of its arrival, and each answer the id.

    Routes find them as `request.state.request_id` and `request.state.started_s` (monotonic seconds).
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

    def __init__(self, scope: Scope, receive: Receive, send: Send, lifecycle: Lifecycle | None) -> None:
        headers = Headers(scope=scope)
        self._receive = receive
        self._send = send
        self._lifecycle = lifecycle
        self.request_id = accept_request_id(headers.get("x-request-id"))
        self.answering = False
        # Whether a client may still be sending. One that waits for permission has not begun.
        self._unread = (
            headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        ) and "100-continue" not in headers.get("expect", "").lower()
        scope.setdefault("state", {}).update(request_id=self.request_id, started_s=time.monotonic())

    async def receive(self) -> Message:
        message = await self._receive()
        self._unread = message["type"] == "http.request" and message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.answering = True
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self.request_id
            if self._lifecycle is not None and self._lifecycle.phase is Phase.DRAINING:
                headers["Connection"] = "close"
        elif self._unread and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await drop_rest(self.receive)
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)
