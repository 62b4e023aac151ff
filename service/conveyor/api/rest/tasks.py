"""The three tasks over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from conveyor.api.deadline import Lifetime
from conveyor.api.offload import Offload, Room, num_values
from conveyor.api.outcome import record_outcome, shown_error, stopped
from conveyor.api.priority import PRIORITY_HEADER, priority_of
from conveyor.api.rest.answers import FORECAST_RESULT, SENTIMENT_RESULT, TAG_RESULT, write_answer
from conveyor.api.rest.bodies import ForecastBody, SentimentBody, TagBody, TaskBody
from conveyor.api.rest.errors import error_response
from conveyor.api.rest.incoming import Body, Incoming
from conveyor.api.rest.parsing import parse_body
from conveyor.domain import Answer, Forecast, Sentiment, Tagging
from conveyor.errors import Code, ConveyorError
from conveyor.gateway.call import Call
from conveyor.gateway.gateway import Gateway
from conveyor.gateway.limits import Limits
from conveyor.spec import Task
from conveyor.telemetry.metrics import Metrics
from conveyor.wire.messages import NO_DEADLINE

__all__ = ["Endpoint", "create_tasks"]

BodyT = TypeVar("BodyT", bound=TaskBody)
ResultT = TypeVar("ResultT", Sentiment, Tagging, Forecast)

# A request that was read: what is left is to ask the gateway, on the event loop.
Question = Callable[[Call], Coroutine[Any, Any, Answer[ResultT]]]

# In bodies of the largest size. What is received may come slowly; what is parsed holds up the event loop.
_BODIES_RECEIVED = 64
_BODIES_PARSED = 8


def create_tasks(gateway: Gateway, metrics: Metrics, limits: Limits) -> Mapping[str, Endpoint[Any, Any]]:
    """Returns what answers `POST /v1/sentiment`, `/v1/tag` and `/v1/forecast`, by path."""

    def sentiment(body: SentimentBody) -> Question[Sentiment]:
        return lambda call: gateway.sentiment(call, body.inputs, body.model, body.version)

    def tag(body: TagBody) -> Question[Tagging]:
        texts, tokens = body.texts_or_tokens()
        return lambda call: gateway.tag(call, texts, tokens, body.model, body.version)

    def forecast(body: ForecastBody) -> Question[Forecast]:
        series = [item.to_series(f"series[{index}]", limits) for index, item in enumerate(body.series)]
        return lambda call: gateway.forecast(call, series, body.horizon, body.quantiles, body.model, body.version)

    door = _Door(
        metrics, limits, Room(_BODIES_RECEIVED * limits.body_bytes), Offload(_BODIES_PARSED * limits.body_bytes)
    )
    endpoints: list[Endpoint[Any, Any]] = [
        Endpoint("sentiment", SentimentBody, SENTIMENT_RESULT, sentiment, door),
        Endpoint("tag", TagBody, TAG_RESULT, tag, door),
        Endpoint("forecast", ForecastBody, FORECAST_RESULT, forecast, door),
    ]
    return {f"/v1/{endpoint.task}": endpoint for endpoint in endpoints}


@dataclass(frozen=True, slots=True)
class _Door:
    """What the tasks share."""

    metrics: Metrics
    limits: Limits
    received: Room
    offload: Offload


@dataclass(frozen=True, slots=True)
class Endpoint(Generic[BodyT, ResultT]):
    """One task: how its body is read, and what answers it. As an ASGI application it is for an `Envelope`.

    question: makes of a body what the gateway takes; the work of it belongs to reading.
    """

    task: Task
    body_type: type[BodyT]
    result_type: TypeAdapter[ResultT]
    question: Callable[[BodyT], Question[ResultT]]
    door: _Door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        incoming = Incoming.of_scope(scope)
        body = Body(self.door.limits.body_bytes, self.door.received)
        try:
            answer = await self.reply(incoming, lambda: body.read(incoming, receive))
        finally:
            body.release()
        if isinstance(answer, bytes):
            await _send_json(send, answer)
        else:
            await answer(scope, receive, send)

    async def reply(self, incoming: Incoming, body: bytes | Callable[[], Awaitable[bytes]]) -> bytes | Response:
        """The answer to one request: the JSON of its results, or an error.

        Args:
            body: What receives it, if it is not there yet.
        """
        call = Call(self.task, "http", incoming.request_id, NO_DEADLINE)
        code = Code.INTERNAL
        answer = b""
        refusal: ConveyorError | None = None
        try:
            call.priority = priority_of(incoming.header(PRIORITY_HEADER))
            call.deadline = incoming.deadline(self.door.limits.request_timeout_s)
            with Lifetime(call.deadline) as lifetime:
                incoming.end_with_client(lifetime)
                answer = await self._answer(body if isinstance(body, bytes) else await body(), call)
            code = Code.OK
        except asyncio.CancelledError:
            # A client that leaves is `Cancelled`: this is the server, at the end of its grace.
            refusal = stopped()
        except Exception as fault:
            refusal = shown_error(fault, call.request_id)
        finally:
            record_outcome(self.door.metrics, call, code if refusal is None else refusal.code, incoming.started_s)
        return answer if refusal is None else error_response(refusal)

    async def _answer(self, raw: bytes, call: Call) -> bytes:
        door = self.door
        ask = await door.offload.read(len(raw), lambda: self.question(parse_body(self.body_type, raw, door.limits)))
        answer = await ask(call)
        return await door.offload.write(num_values(answer), lambda: write_answer(self.result_type, answer))


async def _send_json(send: Send, body: bytes) -> None:
    headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
