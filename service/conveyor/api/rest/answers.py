"""The bodies of answers, as they are written and as they are documented: the domain's own objects.

`write` gives numbers in full precision and leaves out what is None.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from pydantic import TypeAdapter
from pydantic_core import to_json
from starlette.responses import Response

from conveyor.domain import Answer, Forecast, Sentiment, Tagging
from conveyor.errors import Code
from conveyor.gateway.catalogue import ModelDescription

__all__ = [
    "ERROR",
    "FORECAST_ANSWER",
    "FORECAST_RESULT",
    "HEALTH",
    "MODEL",
    "MODEL_LIST",
    "SENTIMENT_ANSWER",
    "SENTIMENT_RESULT",
    "TAG_ANSWER",
    "TAG_RESULT",
    "ErrorBody",
    "Health",
    "ModelList",
    "write",
    "write_answer",
]

ValueT = TypeVar("ValueT")
ResultT = TypeVar("ResultT", Sentiment, Tagging, Forecast)


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """Every answer but 200: what was wrong and what is accepted, its code, and the field at fault if there is one."""

    error: str
    code: Code
    field: str | None = None


@dataclass(frozen=True, slots=True)
class ModelList:
    """Every model of this server, by name."""

    models: Sequence[ModelDescription]


@dataclass(frozen=True, slots=True)
class Health:
    """`live`, or `ready`."""

    status: str


SENTIMENT_ANSWER: TypeAdapter[Answer[Sentiment]] = TypeAdapter(Answer[Sentiment])
TAG_ANSWER: TypeAdapter[Answer[Tagging]] = TypeAdapter(Answer[Tagging])
FORECAST_ANSWER: TypeAdapter[Answer[Forecast]] = TypeAdapter(Answer[Forecast])
SENTIMENT_RESULT = TypeAdapter(Sentiment)
TAG_RESULT = TypeAdapter(Tagging)
FORECAST_RESULT = TypeAdapter(Forecast)
MODEL_LIST = TypeAdapter(ModelList)
MODEL = TypeAdapter(ModelDescription)
HEALTH = TypeAdapter(Health)
ERROR = TypeAdapter(ErrorBody)


def write(adapter: TypeAdapter[ValueT], value: ValueT) -> Response:
    """Answers 200 with a value. Untyped serialisation would be faster, and writes None as null inside dataclasses."""
    return Response(adapter.dump_json(value, exclude_none=True), media_type="application/json")


def write_answer(adapter: TypeAdapter[ResultT], answer: Answer[ResultT]) -> bytes:
    """Writes results. Each is written by itself, so that in a thread others get their turn between them."""
    dump = adapter.serializer.to_json
    results = b",".join([dump(result, exclude_none=True) for result in answer.results])
    return _head(answer.model, answer.version) + results + b"]}"


@lru_cache(maxsize=256)
def _head(model: str, version: str) -> bytes:
    return b'{"model":%b,"version":%b,"results":[' % (to_json(model), to_json(version))
