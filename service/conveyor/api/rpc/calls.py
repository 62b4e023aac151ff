"""The calls of the service: each message in, through the gateway, and a message or a status out.

Handlers take and give bytes: a message that gRPC parses itself fails as a fault of the server, without a field.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Generic, NoReturn, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from conveyor.api.deadline import LONGEST_TIMEOUT_S
from conveyor.api.offload import Offload, forecast_size, num_values
from conveyor.api.outcome import record_outcome, show_failures, shown_error
from conveyor.api.priority import PRIORITY_HEADER, priority_of
from conveyor.api.request_id import accept_request_id
from conveyor.api.rpc.errors import REQUEST_ID_KEY, STATUS, error_metadata
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
from conveyor.api.shown import clamp
from conveyor.domain import Answer, Forecast, Sentiment, Tagging
from conveyor.errors import Code, ConveyorError, InvalidArgument, PayloadTooLarge
from conveyor.gateway.advancing import Advances
from conveyor.gateway.call import Call
from conveyor.gateway.checks import check_items
from conveyor.gateway.gateway import Gateway
from conveyor.gateway.limits import Limits
from conveyor.spec import Task
from conveyor.telemetry.metrics import Metrics
from conveyor.wire.messages import NO_DEADLINE

__all__ = ["SERVICE", "service_handler"]

SERVICE: str = pb.DESCRIPTOR.services_by_name["Conveyor"].full_name

RequestT = TypeVar("RequestT", bound=Message)
AnswerT = TypeVar("AnswerT", Answer[Sentiment], Answer[Tagging], Answer[Forecast], Advances)

# A request that was read: what is left is to ask the gateway, on the event loop.
Ask = Callable[[Call], Awaitable[AnswerT]]

Context = grpc.aio.ServicerContext[bytes, bytes]

_PRIORITY_KEY = PRIORITY_HEADER.lower()

_TOKEN_FIELD = re.compile(r"inputs(\[\d+\])(?:(\[\d+\]))?")

# In messages of the largest size.
_MESSAGES_PARSED = 8


def service_handler(
    gateway: Gateway, metrics: Metrics, limits: Limits, running: RunningCalls
) -> grpc.GenericRpcHandler:
    """Returns the handler of `conveyor.v1.Conveyor`, to be added to a `grpc.aio` server."""
    tasks = _Tasks(gateway, limits)
    door = _Door(metrics, limits, running, Offload(_MESSAGES_PARSED * limits.body_bytes))
    calls = {
        "Sentiment": _TaskCall("sentiment", pb.SentimentRequest, tasks.sentiment, sentiment_response, door).answer,
        "Tag": _TaskCall("tag", pb.TagRequest, tasks.tag, tag_response, door).answer,
        "Forecast": _TaskCall("forecast", pb.ForecastRequest, tasks.forecast, forecast_response, door).answer,
        "AppendSessions": _TaskCall(
            "forecast", pb.AppendSessionsRequest, tasks.append_many, advances_response, door
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

    def sentiment(self, request: pb.SentimentRequest) -> Ask[Answer[Sentiment]]:
        self._check_count(len(request.inputs), "inputs")
        inputs, (model, version) = list(request.inputs), _model(request)
        return lambda call: self.gateway.sentiment(call, inputs, model, version)

    def tag(self, request: pb.TagRequest) -> Ask[Answer[Tagging]]:
        self._check_count(len(request.inputs), "inputs")
        self._check_count(len(request.tokens), "tokens")
        tokens = [list(item.tokens) for item in request.tokens] or None
        inputs = list(request.inputs) or (None if tokens else [])
        model, version = _model(request)

        async def ask(call: Call) -> Answer[Tagging]:
            try:
                return await self.gateway.tag(call, inputs, tokens, model, version)
            except InvalidArgument as error:
                if tokens is not None and error.field is not None:
                    # In JSON tokens stand in `inputs`; here they have a field of their own.
                    error.field = _TOKEN_FIELD.sub(_token_field, error.field)
                raise

        return ask

    def forecast(self, request: pb.ForecastRequest) -> Ask[Answer[Forecast]]:
        self._check_count(len(request.series), "series")
        series = [
            series_from_message(item, f"series[{index}]", self.limits) for index, item in enumerate(request.series)
        ]
        horizon, quantiles = request.horizon or None, list(request.quantiles) or None
        model, version = _model(request)
        return lambda call: self.gateway.forecast(call, series, horizon, quantiles, model, version)

    def append_many(self, request: pb.AppendSessionsRequest) -> Ask[Advances]:
        if len(request.items) > self.limits.items:
            check_items(len(request.items), "items", self.limits)
        appends = appends_from(list(request.items))
        horizon, quantiles = request.horizon or None, list(request.quantiles) or None

        async def ask(call: Call) -> Advances:
            advances = await self.gateway.sessions.append_many(call, appends, horizon, quantiles)
            show_failures(advances.failures, call.request_id)
            return advances

        return ask

    def _check_count(self, count: int, field: str) -> None:
        if count:  # whether there must be any is the gateway's to say: of inputs and tokens one is empty
            check_items(count, field, self.limits)


@dataclass(frozen=True, slots=True)
class _Door:
    """What the tasks share."""

    metrics: Metrics
    limits: Limits
    running: RunningCalls
    offload: Offload


@dataclass(frozen=True, slots=True)
class _TaskCall(Generic[RequestT, AnswerT]):
    """One task: how its message is read, and what answers it."""

    task: Task
    request_type: type[RequestT]
    read: Callable[[RequestT], Ask[AnswerT]]
    response: Callable[[AnswerT], Message]
    door: _Door

    async def answer(self, raw: bytes, context: Context) -> bytes:
        started_s = time.monotonic()
        metadata = dict(context.invocation_metadata() or ())
        call = Call(self.task, "grpc", _request_id(metadata), NO_DEADLINE)
        code, payload, error = Code.INTERNAL, b"", None
        try:
            call.deadline = started_s + self._timeout_s(context)
            call.priority = priority_of(_text(metadata, _PRIORITY_KEY))
            with self.door.running.one_until(call.deadline):
                payload = await self._answer(raw, call)
            code = Code.OK
        except asyncio.CancelledError:
            # gRPC cancels the handler both when the caller leaves and when its deadline passes.
            code = Code.CANCELLED if time.monotonic() < call.deadline else Code.DEADLINE_EXCEEDED
            raise
        except Exception as fault:
            error = shown_error(fault, call.request_id)
            code = error.code
        finally:
            record_outcome(self.door.metrics, call, code, started_s)
        if error is not None:
            await _refuse(context, error, call.request_id)
        context.set_trailing_metadata(((REQUEST_ID_KEY, call.request_id),))
        return payload

    async def _answer(self, raw: bytes, call: Call) -> bytes:
        limit_bytes = self.door.limits.body_bytes
        if len(raw) > limit_bytes:
            raise PayloadTooLarge(f"the message is too large; at most {limit_bytes} bytes are accepted")
        ask = await self.door.offload.read(len(raw), lambda: self.read(parse_message(self.request_type, raw)))
        answer = await ask(call)
        size = num_values(answer) if isinstance(answer, Answer) else sum(map(forecast_size, answer.results.values()))
        return await self.door.offload.write(size, lambda: self.response(answer).SerializeToString())

    def _timeout_s(self, context: Context) -> float:
        remaining_s: float | None = context.time_remaining()
        return self.door.limits.request_timeout_s if remaining_s is None else min(remaining_s, LONGEST_TIMEOUT_S)


@dataclass(frozen=True, slots=True)
class _ListModels:
    gateway: Gateway

    async def answer(self, raw: bytes, context: Context) -> bytes:
        request_id = _request_id(dict(context.invocation_metadata() or ()))
        try:
            parse_message(pb.ListModelsRequest, raw)
            payload = list_models_response(self.gateway.models()).SerializeToString()
        except Exception as fault:
            await _refuse(context, shown_error(fault, request_id), request_id)
        context.set_trailing_metadata(((REQUEST_ID_KEY, request_id),))
        return payload


@dataclass(frozen=True, slots=True)
class _Streams:
    door: StreamDoor

    async def answer(self, _: AsyncIterator[bytes], context: Context) -> None:
        request_id = _request_id(dict(context.invocation_metadata() or ()))
        error = await SessionStream(self.door, context, request_id).serve()
        if error is not None:
            await _refuse(context, error, request_id)
        context.set_trailing_metadata(((REQUEST_ID_KEY, request_id),))


def _model(request: pb.SentimentRequest | pb.TagRequest | pb.ForecastRequest) -> tuple[str | None, str | None]:
    return request.model or None, request.version or None


async def _refuse(context: Context, error: ConveyorError, request_id: str) -> NoReturn:
    await context.abort(STATUS[type(error)], clamp(error.message), error_metadata(error, request_id))


def _request_id(metadata: Mapping[str, str | bytes]) -> str:
    return accept_request_id(_text(metadata, REQUEST_ID_KEY))


def _text(metadata: Mapping[str, str | bytes], key: str) -> str | None:
    given = metadata.get(key)
    return given if isinstance(given, str) else None


def _token_field(match: re.Match[str]) -> str:
    item, token = match.groups()
    return f"tokens{item}" + (f".tokens{token}" if token else "")
