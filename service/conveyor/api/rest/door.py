"""What the routes of the HTTP door share: a request is read in bounds, answered in its time, counted and logged."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from conveyor.api.deadline import Lifetime
from conveyor.api.offload import INLINE_BYTES, Offload, Room
from conveyor.api.outcome import record_outcome, shown_error, stopped
from conveyor.api.priority import PRIORITY_HEADER, priority_of
from conveyor.api.rest.errors import error_response
from conveyor.api.rest.incoming import Body, Incoming
from conveyor.errors import Code, ConveyorError
from conveyor.gateway.call import Call
from conveyor.gateway.limits import Limits
from conveyor.spec import Task
from conveyor.telemetry.metrics import Metrics
from conveyor.wire.messages import NO_DEADLINE

__all__ = ["JSON", "OCTETS", "Door", "send_answer"]

JSON: Final = b"application/json"
OCTETS: Final = b"application/octet-stream"

ReadT = TypeVar("ReadT")

_PRIORITY_KEY: Final = PRIORITY_HEADER.lower().encode()

# In bodies of the largest size. What is received may come slowly; what is parsed holds up the event loop.
_BODIES_RECEIVED = 64
_BODIES_PARSED = 8


@dataclass(frozen=True, slots=True)
class Door:
    """What every route is given.

    received: the room for bodies that come in.
    """

    metrics: Metrics
    limits: Limits
    received: Room
    offload: Offload

    @classmethod
    def of(cls, metrics: Metrics, limits: Limits) -> Door:
        """A door with room for some bodies of the largest size."""
        room = Room(_BODIES_RECEIVED * limits.body_bytes)
        return cls(metrics, limits, room, Offload(_BODIES_PARSED * limits.body_bytes))

    def call(self, task: Task, incoming: Incoming) -> Call:
        """A request as the gateway takes it, whose headers are not looked at yet."""
        return Call(task, "http", incoming.request_id, NO_DEADLINE)

    def set_terms(self, call: Call, incoming: Incoming) -> None:
        """Takes over how urgent a request is, and when its time is up.

        Raises:
            InvalidArgument: What its headers say of that is not what is accepted.
        """
        call.priority = priority_of(incoming.header(_PRIORITY_KEY))
        call.deadline = incoming.deadline(self.limits.request_timeout_s)

    async def reply(self, call: Call, incoming: Incoming, work: Callable[[Call], Awaitable[bytes]]) -> bytes | Response:
        """The answer to one request: what `work` gives, or the error that it raises.

        To be run in a task; `work` is cancelled when the deadline passes or the client leaves.
        """
        code = Code.INTERNAL
        answer = b""
        refusal: ConveyorError | None = None
        try:
            self.set_terms(call, incoming)
            with Lifetime(call.deadline) as lifetime:
                incoming.end_with_client(lifetime)
                answer = await work(call)
            code = Code.OK
        except asyncio.CancelledError:
            # If nobody says why, it is the server, at the end of its grace.
            refusal = stopped()
        except Exception as fault:
            refusal = shown_error(fault, call.request_id)
        finally:
            record_outcome(self.metrics, call, code if refusal is None else refusal.code, incoming.started_s)
        return answer if refusal is None else error_response(refusal)

    async def read(
        self,
        incoming: Incoming,
        receive: Receive,
        parse: Callable[[bytes], ReadT],
        inline_bytes: int = INLINE_BYTES,
    ) -> ReadT:
        """Receives a body and makes of it what `parse` does; of one above `inline_bytes` in a thread.

        Raises:
            PayloadTooLarge, QueueFull, Cancelled: As `Body.read`.
        """
        body = Body(self.limits.body_bytes, self.received)
        try:
            raw = await body.read(incoming, receive)
            return await self.offload.read(len(raw), lambda: parse(raw), inline_bytes)
        finally:
            body.release()


async def send_answer(
    answer: bytes | Response, scope: Scope, receive: Receive, send: Send, media_type: bytes = JSON
) -> None:
    """Sends a reply as an ASGI application does."""
    if not isinstance(answer, bytes):
        await answer(scope, receive, send)
        return
    headers = [(b"content-length", b"%d" % len(answer)), (b"content-type", media_type)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})
