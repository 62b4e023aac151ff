"""The three tasks over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from fastapi import FastAPI
from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response

from conveyor.api.deadline import until
from conveyor.api.offload import Offload, Room, num_values
from conveyor.api.outcome import record_outcome, shown_error, stopped
from conveyor.api.priority import PRIORITY_HEADER, priority_of
from conveyor.api.rest.answers import FORECAST_RESULT, SENTIMENT_RESULT, TAG_RESULT, write_answer
from conveyor.api.rest.bodies import ForecastBody, SentimentBody, TagBody, TaskBody
from conveyor.api.rest.errors import error_response
from conveyor.api.rest.incoming import body_of, deadline_of, unless_disconnected
from conveyor.api.rest.openapi import task_documentation
from conveyor.api.rest.parsing import parse_body
from conveyor.domain import Answer, Forecast, Sentiment, Tagging
from conveyor.errors import Code, ConveyorError
from conveyor.gateway.call import Call
from conveyor.gateway.gateway import Gateway
from conveyor.gateway.limits import Limits
from conveyor.spec import Task
from conveyor.telemetry.metrics import Metrics
from conveyor.wire.messages import NO_DEADLINE

__all__ = ["add_task_routes"]

BodyT = TypeVar("BodyT", bound=TaskBody)
ResultT = TypeVar("ResultT", Sentiment, Tagging, Forecast)

# A request that was read: what is left is to ask the gateway, on the event loop.
Question = Callable[[Call], Coroutine[Any, Any, Answer[ResultT]]]

# In bodies of the largest size. What is received may come slowly; what is parsed holds up the event loop.
_BODIES_RECEIVED = 64
_BODIES_PARSED = 8


def add_task_routes(app: FastAPI, gateway: Gateway, metrics: Metrics, limits: Limits) -> None:
    """Adds `POST /v1/sentiment`, `/v1/tag` and `/v1/forecast`."""

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
    endpoints: list[_Endpoint[Any, Any]] = [
        _Endpoint("sentiment", SentimentBody, SENTIMENT_RESULT, sentiment, door),
        _Endpoint("tag", TagBody, TAG_RESULT, tag, door),
        _Endpoint("forecast", ForecastBody, FORECAST_RESULT, forecast, door),
    ]
    for endpoint in endpoints:
        app.add_api_route(
            f"/v1/{endpoint.task}",
            endpoint.answer,
            methods=["POST"],
            name=endpoint.task,
            summary=endpoint.task.capitalize(),
            description=endpoint.body_type.__doc__,
            tags=["tasks"],
            response_model=None,
            **task_documentation(endpoint.task),
        )


@dataclass(frozen=True, slots=True)
class _Door:
    """What the tasks share."""

    metrics: Metrics
    limits: Limits
    received: Room
    offload: Offload


@dataclass(frozen=True, slots=True)
class _Endpoint(Generic[BodyT, ResultT]):
    """One task: how its body is read, and what answers it.

    question: makes of a body what the gateway takes; the work of it belongs to reading.
    """

    task: Task
    body_type: type[BodyT]
    result_type: TypeAdapter[ResultT]
    question: Callable[[BodyT], Question[ResultT]]
    door: _Door

    async def answer(self, request: Request) -> Response:
        call = Call(self.task, "http", request.state.request_id, NO_DEADLINE)
        code = Code.INTERNAL
        try:
            call.priority = priority_of(request.headers.get(PRIORITY_HEADER))
            call.deadline = deadline_of(request, self.door.limits.request_timeout_s)
            async with until(call.deadline):
                ask = await self._read(request)
                answer = await unless_disconnected(request, ask(call))
                response = await self.door.offload.write(
                    num_values(answer), lambda: write_answer(self.result_type, answer)
                )
            code = Code.OK
        except asyncio.CancelledError:
            # A client that leaves is `Cancelled`: this is the server, at the end of its grace.
            error: ConveyorError = stopped()
            code = error.code
            response = error_response(error)
        except Exception as fault:
            error = shown_error(fault, call.request_id)
            code = error.code
            response = error_response(error)
        finally:
            record_outcome(self.door.metrics, call, code, request.state.started_s)
        return response

    async def _read(self, request: Request) -> Question[ResultT]:
        limits = self.door.limits
        async with body_of(request, limits.body_bytes, self.door.received) as raw:
            return await self.door.offload.read(
                len(raw), lambda: self.question(parse_body(self.body_type, raw, limits))
            )
