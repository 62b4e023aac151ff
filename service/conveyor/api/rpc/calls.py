"""The calls of the service: how their messages are read, and what is asked with them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass

import grpc

from conveyor.api.offload import Offload
from conveyor.api.outcome import show_failures, shown_error
from conveyor.api.rpc.errors import REQUEST_ID_KEY
from conveyor.api.rpc.messages import (
    forecast_response,
    list_models_response,
    sentiment_response,
    series_from_message,
    tag_response,
)
from conveyor.api.rpc.parsing import parse_message
from conveyor.api.rpc.proto.conveyor.v1 import conveyor_pb2 as pb
from conveyor.api.rpc.running import RunningCalls
from conveyor.api.rpc.session_messages import advances_response, appends_from
from conveyor.api.rpc.session_stream import SessionStream, StreamDoor
from conveyor.api.rpc.unary import Context, Door, Method, Reading, refuse, request_id_of
from conveyor.api.small import Together
from conveyor.domain import Forecast, Sentiment, Tagging
from conveyor.gateway.advancing import Advances
from conveyor.gateway.call import Call
from conveyor.gateway.checks import check_items
from conveyor.gateway.gateway import Gateway
from conveyor.gateway.limits import Limits
from conveyor.gateway.question import Question
from conveyor.telemetry.metrics import Metrics

__all__ = ["SERVICE", "service_handler"]

SERVICE: str = pb.DESCRIPTOR.services_by_name["Conveyor"].full_name

_TOKEN_FIELD = re.compile(r"inputs(\[\d+\])(?:(\[\d+\]))?")

# In messages of the largest size.
_MESSAGES_PARSED = 8


def service_handler(
    gateway: Gateway, metrics: Metrics, limits: Limits, running: RunningCalls
) -> grpc.GenericRpcHandler:
    """Returns the handler of `conveyor.v1.Conveyor`, to be added to a `grpc.aio` server."""
    tasks = _Tasks(gateway, limits)
    together = Together(asyncio.get_running_loop(), gateway.gather)
    door = Door(metrics, limits, running, Offload(_MESSAGES_PARSED * limits.body_bytes), together)
    calls = {
        "Sentiment": Method("sentiment", pb.SentimentRequest, tasks.sentiment, sentiment_response, door).answer,
        "Tag": Method("tag", pb.TagRequest, tasks.tag, tag_response, door).answer,
        "Forecast": Method("forecast", pb.ForecastRequest, tasks.forecast, forecast_response, door).answer,
        "AppendSessions": Method(
            "forecast", pb.AppendSessionsRequest, tasks.append_many, advances_response, door, is_task=False
        ).answer,
        "ListModels": _ListModels(gateway).answer,
    }
    streams = _Streams(StreamDoor(gateway, metrics, limits, running, door.offload))
    return grpc.method_handlers_generic_handler(
        SERVICE,
        {name: grpc.unary_unary_rpc_method_handler(call) for name, call in calls.items()}
        | {"Session": grpc.stream_stream_rpc_method_handler(streams.answer)},
    )


@dataclass(frozen=True, slots=True)
class _Tasks:
    """Requests as the gateway takes them. What proto3 can't tell from "not given" is not given.

    Too many items are refused before any of them is converted.
    """

    gateway: Gateway
    limits: Limits

    def sentiment(self, request: pb.SentimentRequest) -> Reading[Question[Sentiment]]:
        self._check_count(len(request.inputs), "inputs")
        inputs, (model, version) = list(request.inputs), _model(request)
        return Reading(lambda call: self.gateway.sentiment(call, inputs, model, version))

    def tag(self, request: pb.TagRequest) -> Reading[Question[Tagging]]:
        self._check_count(len(request.inputs), "inputs")
        self._check_count(len(request.tokens), "tokens")
        tokens = [list(item.tokens) for item in request.tokens] or None
        inputs = list(request.inputs) or (None if tokens else [])
        model, version = _model(request)
        # In JSON tokens stand in `inputs`; here they have a field of their own.
        field = str if tokens is None else _in_tokens
        return Reading(lambda call: self.gateway.tag(call, inputs, tokens, model, version), field)

    def forecast(self, request: pb.ForecastRequest) -> Reading[Question[Forecast]]:
        self._check_count(len(request.series), "series")
        series = [
            series_from_message(item, f"series[{index}]", self.limits) for index, item in enumerate(request.series)
        ]
        horizon, quantiles = request.horizon or None, list(request.quantiles) or None
        model, version = _model(request)
        return Reading(lambda call: self.gateway.forecast(call, series, horizon, quantiles, model, version))

    def append_many(self, request: pb.AppendSessionsRequest) -> Reading[Awaitable[Advances]]:
        if len(request.items) > self.limits.items:
            check_items(len(request.items), "items", self.limits)
        appends = appends_from(list(request.items))
        horizon, quantiles = request.horizon or None, list(request.quantiles) or None

        async def ask(call: Call) -> Advances:
            advances = await self.gateway.sessions.append_many(call, appends, horizon, quantiles)
            show_failures(advances.failures, call.request_id)
            return advances

        return Reading(ask)

    def _check_count(self, count: int, field: str) -> None:
        if count:  # whether there must be any is the gateway's to say: of inputs and tokens one is empty
            check_items(count, field, self.limits)


@dataclass(frozen=True, slots=True)
class _ListModels:
    gateway: Gateway

    async def answer(self, raw: bytes, context: Context) -> bytes:
        request_id = request_id_of(context)
        try:
            parse_message(pb.ListModelsRequest, raw)
            payload = list_models_response(self.gateway.models()).SerializeToString()
        except Exception as fault:
            await refuse(context, shown_error(fault, request_id), request_id)
        context.set_trailing_metadata(((REQUEST_ID_KEY, request_id),))
        return payload


@dataclass(frozen=True, slots=True)
class _Streams:
    door: StreamDoor

    async def answer(self, _: AsyncIterator[bytes], context: Context) -> None:
        request_id = request_id_of(context)
        error = await SessionStream(self.door, context, request_id).serve()
        if error is not None:
            await refuse(context, error, request_id)
        context.set_trailing_metadata(((REQUEST_ID_KEY, request_id),))


def _model(request: pb.SentimentRequest | pb.TagRequest | pb.ForecastRequest) -> tuple[str | None, str | None]:
    return request.model or None, request.version or None


def _in_tokens(field: str) -> str:
    return _TOKEN_FIELD.sub(_token_field, field)


def _token_field(match: re.Match[str]) -> str:
    item, token = match.groups()
    return f"tokens{item}" + (f".tokens{token}" if token else "")
