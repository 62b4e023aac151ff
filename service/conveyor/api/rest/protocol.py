"""A connection of the HTTP server: uvicorn's, with bounds on how many there are and how long each may stall."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Coroutine, Mapping
from typing import Any, Final

import httptools
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from conveyor.api.request_id import accept_request_id
from conveyor.api.rest.app import App
from conveyor.api.rest.envelope import Envelope
from conveyor.api.rest.errors import error_response
from conveyor.api.rest.heads import Head, KnownHeads
from conveyor.api.rest.incoming import Incoming
from conveyor.api.rest.presence import PRESENCE, Presence
from conveyor.api.rest.short import ShortExchange, is_short
from conveyor.api.rest.tasks import Endpoint
from conveyor.errors import ConveyorError, InvalidArgument, QueueFull

__all__ = ["Connection"]

# How long the head of a request may take to arrive, from the first byte or from the connection on.
_HEAD_TIMEOUT_S: Final = 30.0

# How long a client may leave an answer unread.
_WRITE_TIMEOUT_S: Final = 60.0


class Connection(HttpToolsProtocol):
    """Answers by itself what never becomes a request: connections beyond `limit_concurrency`, and broken HTTP.

    uvicorn would answer both in plain text, without a request id. Small requests of a task go the short path: ASGI,
    with what uvicorn and the envelope do for it, would take as long as everything else in the front end.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._presence = Presence()
        super().__init__(config, server_state, app_state | {PRESENCE: self._presence}, _loop)
        self._max_connections = config.limit_concurrency
        self.limit_concurrency = None
        self._head_deadline: float | None = None
        self._cutting_off: asyncio.TimerHandle | None = None
        self._short_paths: Mapping[bytes, Endpoint[Any, Any]] = {}
        # None where nothing goes the short path.
        self._heads: KnownHeads | None = None
        # A request that goes the short path if the rest of its body is among the bytes that are being parsed.
        self._short: Head | None = None
        self._short_body = b""
        # The newest that went there.
        self._exchange: ShortExchange | None = None
        # Whether the parser waits for the first byte of a request, and the head that it has read last, if that could be
        # read again without it.
        self._is_between = True
        self._repeatable: Head | None = None
        # When the connection is closed unless something comes, and when the timer for that goes off: it is not set anew
        # for each request.
        self._close_at = math.inf
        self._timer_at = math.inf
        if isinstance(self.app, App):
            self._lifecycle = self.app.lifecycle
            self._short_paths = self.app.short_paths
            self.together = self.app.together
            self._heads = self.app.heads
        self._common: tuple[object, bytes] = (None, b"")
        self._upgraded = False
        # A request that asks for a protocol we do not speak, until it is read again without its asking.
        self._declining = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Waits for a request; for one only to refuse it if there are too many connections."""
        super().connection_made(transport)
        if self._max_connections is not None and len(self.connections) > self._max_connections:
            self.app = Envelope(_too_many_connections)
            self._short_paths, self._heads = {}, None
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets its timers, and tells the request that is being answered."""
        self._stop_timer()
        self._stop_cutting_off()
        super().connection_lost(exc)
        self._presence.leave()
        # An exchange refers to its connection: together they would wait for the collector, which comes rarely.
        self.cycle = self._exchange = None  # type: ignore[assignment]

    def on_message_begin(self) -> None:
        """A request comes. What ASGI wants to know of it is put together when its way is known."""
        self._is_between = False
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_headers_complete(self) -> None:
        """Begins the answer to a request, or if it may go the short path, looks first whether its body is there."""
        self._declining = self._asks_in_vain()
        if self._declining:
            return
        endpoint = self._short_paths.get(self.url)
        if (
            endpoint is not None
            and self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and (self.cycle is None or self.cycle.response_complete)
            and is_short(headers := dict(reversed(self.headers)))
        ):
            self._short = Head(endpoint, headers, int(headers[b"content-length"]))
        else:
            self._begin_asgi()

    def _begin_asgi(self) -> None:
        url, headers, expect = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expect
        # The list that is in the scope already.
        self.headers += headers
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Takes a piece of a body."""
        if self._short is None:
            super().on_body(body)
        else:
            self._short_body += body

    def on_message_complete(self) -> None:
        """Reads on behind a whole request, so that its client is seen to leave.

        uvicorn stops reading above 64 KiB, until the application asks for more.
        """
        self._is_between = True
        if self._declining:
            return
        if self._short is not None:
            head, self._short = self._short, None
            body, self._short_body = self._short_body, b""
            keep_alive = self.parser.should_keep_alive()
            self._repeatable = head if keep_alive else None
            self._answer_short(head, body, keep_alive=keep_alive)
            return
        super().on_message_complete()
        if not self.pipeline:
            self.flow.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Reads on, and does not wait for ever for the rest of a head."""
        self._close_at = math.inf
        was_between = self._is_between
        if not (was_between and self._answer_known(data)):
            self._repeatable = None
            self._parse(data)
            if was_between and self._heads is not None and self._repeatable is not None:
                self._heads.keep(data, self._repeatable)
        if self._short is not None:
            # Its body comes later, if at all: it is waited for as that of any other request.
            body, self._short, self._short_body = self._short_body, None, b""
            self._begin_asgi()
            super().on_body(body)
        if self._upgraded or self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            self._await_head()
        else:
            self._head_deadline = None

    def handle_websocket_upgrade(self) -> None:
        """Hands the connection over, and waits for no more heads on it."""
        super().handle_websocket_upgrade()
        self._upgraded = True
        self._stop_timer()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  uvicorn's sentence
        """Answers what is not HTTP with the error body, and closes the connection."""
        response = error_response(
            InvalidArgument("the request is not valid HTTP/1.1"),
            headers={"X-Request-Id": accept_request_id(None), "Connection": "close"},
        )
        head = b"".join(b"%b: %b\r\n" % header for header in response.raw_headers)
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\n%b\r\n%b" % (head, bytes(response.body)))
        self.transport.close()

    def pause_writing(self) -> None:
        """Gives a client that does not read its answer some time, then cuts it off."""
        super().pause_writing()
        self._cutting_off = self.loop.call_later(_WRITE_TIMEOUT_S, self.transport.abort)

    def resume_writing(self) -> None:
        """Goes on."""
        self._stop_cutting_off()
        super().resume_writing()

    def _parse(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._declining:
                self._read_again(data[upgrade.args[0] :])
            elif self._should_upgrade():
                self.handle_websocket_upgrade()
        except httptools.HttpParserError:
            self.logger.warning("a client sent what is not HTTP")
            self.send_400_response("")

    def _should_upgrade(self) -> bool:
        return self.parser.get_method() == b"GET" and super()._should_upgrade()

    def _asks_in_vain(self) -> bool:
        asks = self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"
        return asks and not self._should_upgrade()

    def _read_again(self, rest: bytes) -> None:
        """Reads a request as if it did not ask for another protocol, which a server is free to ignore.

        The parser takes what follows the head of one that does for that protocol, and so loses the body: Java's client
        asks for HTTP/2 with every first request of a connection.

        Args:
            rest: What came behind the head.
        """
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        fields = b"".join(b"%b: %b\r\n" % field for field in self.headers if field[0] != b"upgrade")
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._parse(b"%b %b HTTP/%b\r\n%b\r\n%b" % (method, self.url, version, fields, rest))

    def _answer_known(self, data: bytes) -> bool:
        """Begins the answer to a request that is whole and whose head was parsed before; returns whether it is one."""
        head = None if self._heads is None else self._heads.get(data)
        if head is None or not (self.cycle is None or self.cycle.response_complete):
            return False
        self._answer_short(head, data[-head.body_bytes :] if head.body_bytes else b"", keep_alive=True)
        return True

    def _answer_short(self, head: Head, body: bytes, *, keep_alive: bool) -> None:
        given = head.headers.get(b"x-request-id")
        incoming = Incoming(
            accept_request_id(None if given is None else given.decode("latin-1")),
            time.monotonic(),
            head.headers,
            self._presence,
        )
        exchange = ShortExchange(self, head.endpoint, incoming, body, self._lifecycle, keep_alive=keep_alive)
        self.cycle = exchange  # type: ignore[assignment]
        self._exchange = exchange
        # When all that came in this turn of the loop is read, and not inside the parser, which is not to be called from
        # one of its own calls.
        exchange.start()

    def on_response_complete(self) -> None:
        """Goes on with the requests that came meanwhile, or waits for one."""
        if self._upgraded:
            return
        if self.pipeline or self.transport.is_closing():
            super().on_response_complete()
            return
        self.server_state.total_requests += 1
        self.flow.resume_reading()
        self._close_unless_by(self.loop.time() + self.timeout_keep_alive)

    def later(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Does work in a task that the end of the server waits for."""
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def end_short(self, reason: ConveyorError) -> None:
        """Ends the request that goes the short path, if there is one."""
        if self._exchange is not None:
            self._exchange.end(reason)

    def common_headers(self) -> bytes:
        """What uvicorn puts into every answer, as it is written; it makes a new list when the date changes."""
        given, written = self._common
        if given is not self.server_state.default_headers:
            written = b"".join(b"%b: %b\r\n" % header for header in self.server_state.default_headers)
            self._common = self.server_state.default_headers, written
        return written

    def _await_head(self) -> None:
        if self._head_deadline is None:
            self._head_deadline = self.loop.time() + _HEAD_TIMEOUT_S
        self._close_unless_by(self._head_deadline)

    def _close_unless_by(self, moment: float) -> None:
        self._close_at = moment
        if moment < self._timer_at:
            self._unset_keepalive_if_required()
            self._set_timer()

    def _set_timer(self) -> None:
        self._timer_at = self._close_at
        self.timeout_keep_alive_task = self.loop.call_at(self._close_at, self._look_at_time)

    def _look_at_time(self) -> None:
        self._timer_at, self.timeout_keep_alive_task = math.inf, None
        if self.loop.time() >= self._close_at:
            self.timeout_keep_alive_handler()
        elif self._close_at < math.inf:
            self._set_timer()

    def _stop_timer(self) -> None:
        self._close_at = math.inf
        self._unset_keepalive_if_required()

    def _unset_keepalive_if_required(self) -> None:
        # uvicorn calls it too.
        super()._unset_keepalive_if_required()
        self._timer_at = math.inf

    def _stop_cutting_off(self) -> None:
        if self._cutting_off is not None:
            self._cutting_off.cancel()
            self._cutting_off = None


async def _too_many_connections(scope: Scope, receive: Receive, send: Send) -> None:
    error = QueueFull("the server has too many connections; try again later", retry_after_s=1.0)
    await error_response(error, headers={"Connection": "close"})(scope, receive, send)
