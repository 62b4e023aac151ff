"""The three tasks over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from conveyor.api.small import Ask
from conveyor.domain import Answer, Forecast, Sentiment, Tagging
from conveyor.gateway.call import Call
from conveyor.gateway.gateway import Gateway
from conveyor.gateway.question import Question
from conveyor.spec import Task

__all__ = ["Endpoint", "create_tasks"]

BodyT = TypeVar("BodyT", bound=TaskBody)
ResultT = TypeVar("ResultT", Sentiment, Tagging, Forecast)


def create_tasks(gateway: Gateway, door: Door) -> Mapping[str, Endpoint[Any, Any]]:
    """Returns what answers `POST /v1/sentiment`, `/v1/tag` and `/v1/forecast`, by path."""

    def sentiment(body: SentimentBody) -> Ask[Sentiment]:
        return lambda call: gateway.sentiment(call, body.inputs, body.model, body.version)

    def tag(body: TagBody) -> Ask[Tagging]:
        texts, tokens = body.texts_or_tokens()
        return lambda call: gateway.tag(call, texts, tokens, body.model, body.version)

    def forecast(body: ForecastBody) -> Ask[Forecast]:
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

    asking: makes of a body what asks the gateway; the work of it belongs to reading.
    """

    task: Task
    body_type: type[BodyT]
    result_type: TypeAdapter[ResultT]
    asking: Callable[[BodyT], Ask[ResultT]]
    door: Door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        incoming = Incoming.of_scope(scope)

        async def work(call: Call) -> bytes:
            ask = await self.door.read(incoming, receive, self.read)
            return await self._answer(ask(call))

        reply = await self.door.reply(self.door.call(self.task, incoming), incoming, work)
        await send_answer(reply, scope, receive, send)

    def read(self, body: bytes) -> Ask[ResultT]:
        """A body, checked.

        Raises:
            InvalidArgument: It is not what the task takes.
        """
        return self.asking(parse_body(self.body_type, body, self.door.limits))

    def write(self, answer: Answer[ResultT]) -> bytes:
        """The JSON of an answer."""
        return write_answer(self.result_type, answer)

    async def finish(self, call: Call, incoming: Incoming, question: Question[ResultT]) -> bytes | Response:
        """The reply to a request whose question is asked already, and large. To be run in a task, behind which its
        caller drops the question: a client that has left is told so before it is awaited."""
        return await self.door.reply(call, incoming, lambda _: self._answer(question))

    async def _answer(self, question: Question[ResultT]) -> bytes:
        answer = await question
        return await self.door.offload.write(num_values(answer), lambda: self.write(answer))
