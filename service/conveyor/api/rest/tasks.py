"""The three tasks over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from conveyor.api.offload import num_values
from conveyor.api.rest.answers import FORECAST_RESULT, SENTIMENT_RESULT, TAG_RESULT, write_answer
from conveyor.api.rest.bodies import ForecastBody, SentimentBody, TagBody, TaskBody
from conveyor.api.rest.door import Door, send_answer
from conveyor.api.rest.incoming import Incoming
from conveyor.api.rest.parsing import parse_body
from conveyor.domain import Answer, Forecast, Sentiment, Tagging
from conveyor.gateway.call import Call
from conveyor.gateway.gateway import Gateway
from conveyor.spec import Task

__all__ = ["Endpoint", "create_tasks"]

BodyT = TypeVar("BodyT", bound=TaskBody)
ResultT = TypeVar("ResultT", Sentiment, Tagging, Forecast)

# A request that was read: what is left is to ask the gateway, on the event loop.
Question = Callable[[Call], Coroutine[Any, Any, Answer[ResultT]]]


def create_tasks(gateway: Gateway, door: Door) -> Mapping[str, Endpoint[Any, Any]]:
    """Returns what answers `POST /v1/sentiment`, `/v1/tag` and `/v1/forecast`, by path."""

    def sentiment(body: SentimentBody) -> Question[Sentiment]:
        return lambda call: gateway.sentiment(call, body.inputs, body.model, body.version)

    def tag(body: TagBody) -> Question[Tagging]:
        texts, tokens = body.texts_or_tokens()
        return lambda call: gateway.tag(call, texts, tokens, body.model, body.version)

    def forecast(body: ForecastBody) -> Question[Forecast]:
        series = [item.to_series(f"series[{index}]", door.limits) for index, item in enumerate(body.series)]
        return lambda call: gateway.forecast(call, series, body.horizon, body.quantiles, body.model, body.version)

    endpoints: list[Endpoint[Any, Any]] = [
        Endpoint("sentiment", SentimentBody, SENTIMENT_RESULT, sentiment, door),
        Endpoint("tag", TagBody, TAG_RESULT, tag, door),
        Endpoint("forecast", ForecastBody, FORECAST_RESULT, forecast, door),
    ]
    return {f"/v1/{endpoint.task}": endpoint for endpoint in endpoints}


@dataclass(frozen=True, slots=True)
class Endpoint(Generic[BodyT, ResultT]):
    """One task: how its body is read, and what answers it. As an ASGI application it is for an `Envelope`.

    question: makes of a body what the gateway takes; the work of it belongs to reading.
    """

    task: Task
    body_type: type[BodyT]
    result_type: TypeAdapter[ResultT]
    question: Callable[[BodyT], Question[ResultT]]
    door: Door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        incoming = Incoming.of_scope(scope)

        async def work(call: Call) -> bytes:
            return await self._answer(await self.door.read(incoming, receive, self._read), call)

        await send_answer(await self.door.reply_in_time(self.task, incoming, work), scope, receive, send)

    def reply(self, incoming: Incoming, body: bytes) -> Coroutine[Any, Any, bytes | Response]:
        """The answer to one request whose small body is there: the JSON of its results, or an error.

        Needs no task. The wait for the engine ends at the deadline; for threads whoever runs this sees to it.
        """
        return self.door.reply(self.task, incoming, lambda call: self._answer(self._read(body), call))

    def _read(self, body: bytes) -> Question[ResultT]:
        return self.question(parse_body(self.body_type, body, self.door.limits))

    async def _answer(self, ask: Question[ResultT], call: Call) -> bytes:
        answer = await ask(call)
        return await self.door.offload.write(num_values(answer), lambda: write_answer(self.result_type, answer))
