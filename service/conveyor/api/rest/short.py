"""The short path of a small task request: from its head and body to the bytes of its answer, without ASGI or a task."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response

from conveyor.api.outcome import record_outcome, shown_error, stopped
from conveyor.api.rest.errors import error_response
from conveyor.api.rest.incoming import Incoming, client_left
from conveyor.api.rest.tasks import Ask, Endpoint
from conveyor.domain import Answer
from conveyor.errors import Code, ConveyorError
from conveyor.gateway.question import Question
from conveyor.lifecycle.phase import Lifecycle, Phase

if TYPE_CHECKING:
    from conveyor.api.rest.protocol import Connection

    Step = Callable[["ShortExchange"], None]

__all__ = ["ShortExchange", "Together", "is_short"]

# A body that is received whole before anything else is done, so small that ten thousand connections may each have one.
_MOST_BYTES: Final = 16 * 1024

# What asks for more than an answer to a whole body.
_LONG: Final = frozenset((b"expect", b"transfer-encoding", b"upgrade"))


def is_short(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a request with these headers, names in small letters, can be answered by a `ShortExchange`."""
    size = headers.get(b"content-length", b"")
    return size.isdigit() and len(size) < 6 and int(size) <= _MOST_BYTES and _LONG.isdisjoint(headers)


class Together:
    """Takes exchanges through their steps: many through one step, then all of them through the next, at the end of each
    turn of the event loop.

    What a step runs and looks up then stays in the processor's caches from one request to the next
    (docs/architecture.md has figures).
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[Step, list[ShortExchange]] = {step: [] for step in STEPS}
        self._is_due = False

    def put(self, exchange: ShortExchange, step: Step) -> None:
        """Has an exchange take a step in this turn, or in the next one if the step's time in this one is over."""
        self._waiting[step].append(exchange)
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._go)

    def _go(self) -> None:
        for step, exchanges in self._waiting.items():
            if exchanges:
                self._waiting[step] = []
                if step is ShortExchange.begin:
                    ShortExchange.encode(exchanges)
                for exchange in exchanges:
                    try:
                        step(exchange)
                    except Exception as fault:
                        # Not to be felt by those behind it; its own client must not wait for ever.
                        context = {"message": "a request failed between its steps", "exception": fault}
                        self._loop.call_exception_handler(context)
                        exchange.abort()
        self._is_due = any(self._waiting.values())
        if self._is_due:
            self._loop.call_soon(self._go)


class _NobodyWaits:
    """In the place of the event by which an ASGI application is told of more bytes."""

    def set(self) -> None:
        """Tells nobody."""


_NOBODY_WAITS = _NobodyWaits()


class ShortExchange:
    """One request of a connection and its answer; what uvicorn knows of it is what it knows of its own cycle."""

    __slots__ = (
        "_ask",
        "_body",
        "_call",
        "_code",
        "_connection",
        "_endpoint",
        "_incoming",
        "_lifecycle",
        "_question",
        "_reply",
        "_result",
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
        self._connection = connection
        self._endpoint = endpoint
        self._incoming = incoming
        self._body = body
        self._lifecycle = lifecycle
        self._call = endpoint.door.call(endpoint.task, incoming)
        self._ask: Ask[Any] | None = None
        # From when the gateway has let it in until the engine has answered.
        self._question: Question[Any] | None = None
        self._result: Answer[Any] | None = None
        self._reply: bytes | Response = b""
        self._code = Code.INTERNAL
        self.keep_alive = keep_alive
        self.message_event = _NOBODY_WAITS
        self.response_complete = False
        self.disconnected = False

    def read(self) -> None:
        """Reads the headers that count, and the body."""
        endpoint = self._endpoint
        body, self._body = self._body, b""
        try:
            endpoint.door.set_terms(self._call, self._incoming)
            self._ask = endpoint.read(body)
        except Exception as fault:
            self._fail(fault)
        else:
            self._connection.together.put(self, ShortExchange.ask)

    def ask(self) -> None:
        """Has the gateway let the request in."""
        # It holds the body.
        ask, self._ask = self._ask, None
        assert ask is not None
        try:
            self._question = ask(self._call)
        except Exception as fault:
            self._fail(fault)
        else:
            self._connection.together.put(self, ShortExchange.begin)

    @staticmethod
    def encode(exchanges: Sequence[ShortExchange]) -> None:
        """Encodes the requests that are begun next."""
        questions = [exchange._question for exchange in exchanges if exchange._question is not None]
        # Those that could not be encoded together are encoded one by one, which says of each what was wrong.
        with contextlib.suppress(Exception):
            questions[0].encode_together(questions)

    def begin(self) -> None:
        """Sends the request to the engine."""
        question = self._question
        assert question is not None
        try:
            is_small = question.begin(self._over)
        except Exception as fault:
            self._question = None
            self._fail(fault)
            return
        if not is_small:
            self._question = None
            task = self._connection.later(self._answer_in_task(question))
            # A task may be cancelled before it awaits the question.
            task.add_done_callback(lambda _: question.drop(stopped()))
            return
        presence = self._incoming.presence
        if presence is not None:
            # Need not be taken back: what has ended can't be ended, and the next request sets its own.
            presence.on_leave = self._leave
            if presence.has_left:
                presence.leave()

    def end(self, reason: ConveyorError) -> None:
        """Ends the request if the engine has it; it is answered with `reason` if its client is there."""
        question, self._question = self._question, None
        if question is not None:
            question.drop(reason)
            self._refuse(reason)

    def abort(self) -> None:
        """Ends the request and its connection, where no answer can be given."""
        question, self._question = self._question, None
        if question is not None:
            question.drop(stopped())
        self._connection.transport.abort()

    def _leave(self) -> None:
        self.disconnected = True
        self.end(client_left())

    def _over(self) -> None:
        self._connection.together.put(self, ShortExchange.answer)

    def answer(self) -> None:
        """Takes the answer of the engine."""
        question, self._question = self._question, None
        if question is None:
            # Ended in the turn in which the answer came.
            return
        try:
            self._result = question.answer()
        except Exception as fault:
            self._fail(fault)
        else:
            self._connection.together.put(self, ShortExchange.write)

    def write(self) -> None:
        """Writes the answer as JSON."""
        result, self._result = self._result, None
        assert result is not None
        try:
            self._reply, self._code = self._endpoint.write(result), Code.OK
        except Exception as fault:
            self._fail(fault)
        else:
            self._connection.together.put(self, ShortExchange.record)

    def _fail(self, fault: Exception) -> None:
        self._refuse(shown_error(fault, self._call.request_id))

    def _refuse(self, error: ConveyorError) -> None:
        self._reply, self._code = error_response(error), error.code
        self._connection.together.put(self, ShortExchange.record)

    def record(self) -> None:
        """Counts and logs the request."""
        record_outcome(self._endpoint.door.metrics, self._call, self._code, self._incoming.started_s)
        connection = self._connection
        if connection.flow.write_paused and not self.disconnected:
            connection.later(self._send_in_turn())
        else:
            connection.together.put(self, ShortExchange.send)

    async def _answer_in_task(self, question: Question[Any]) -> None:
        """Answers what is large."""
        self._reply = await self._endpoint.finish(self._call, self._incoming, question)
        await self._send_in_turn()

    async def _send_in_turn(self) -> None:
        """Sends once the client has read what it was sent before."""
        if not self.disconnected:
            await self._connection.flow.drain()
        self.send()

    def send(self) -> None:
        """Sends the answer. The connection keeps the exchange until the next one, but not its body."""
        connection = self._connection
        reply, self._reply = self._reply, b""
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


# What a request goes through, in this order.
STEPS: Sequence[Step] = (
    ShortExchange.read,
    ShortExchange.ask,
    ShortExchange.begin,
    ShortExchange.answer,
    ShortExchange.write,
    ShortExchange.record,
    ShortExchange.send,
)


def _phrase(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""
