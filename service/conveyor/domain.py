"""Value objects of requests and answers. Names are those of the JSON and the protobuf.

`start` and `end` are Unicode code points into the input, half open.

None of them is changed once it is made. Those that a request makes many of are not frozen: that makes them three times
as dear.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

__all__ = [
    "Answer",
    "Forecast",
    "ModelKey",
    "Sentiment",
    "Series",
    "SessionAdvance",
    "SessionEnd",
    "SessionInfo",
    "Span",
    "Tagging",
    "Token",
]

ResultT = TypeVar("ResultT")


class ModelKey(NamedTuple):
    """One version of one model. A tuple, because every request looks several things up by it."""

    name: str
    version: str


@dataclass(slots=True)
class Sentiment:
    """The most probable label, its probability, and the probability of every label."""

    label: str
    score: float
    scores: Mapping[str, float]


@dataclass(slots=True)
class Token:
    """A token, where it stands, its tag and the probability of that tag there."""

    text: str
    start: int
    end: int
    tag: str
    score: float


@dataclass(slots=True)
class Span:
    """A word or an entity; its score is the least probable of its tokens' tags."""

    text: str
    start: int
    end: int
    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Tagging:
    """The tokens of one text in order, and the spans their tags form."""

    tokens: Sequence[Token]
    spans: Sequence[Span]


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """A history to forecast from.

    values: float64 [steps, features], NaN where an observation is missing, in the caller's units.
    start: time of the first step, with an offset, or None if unknown.
    frequency: pandas offset alias of one step, or None for the model's.
    """

    values: npt.NDArray[np.float64]
    start: datetime | None = None
    frequency: str | None = None


@dataclass(frozen=True, slots=True)
class Forecast:
    """What comes after a series, in the caller's units: `mean[step][target]` and the same for each quantile level."""

    mean: Sequence[Sequence[float]]
    quantiles: Mapping[str, Sequence[Sequence[float]]]
    targets: Sequence[str]
    timestamps: Sequence[str] | None


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A session as it stands: the steps it has taken in, and after how many idle seconds it ends."""

    session: str
    model: str
    version: str
    steps: int
    expires_in: float


@dataclass(frozen=True, slots=True)
class SessionAdvance:
    """A session after what was appended, with the forecast from there if it was wanted."""

    session: str
    steps: int
    expires_in: float
    result: Forecast | None = None


@dataclass(frozen=True, slots=True)
class SessionEnd:
    """A session that was closed, and the steps it had."""

    session: str
    steps: int


@dataclass(slots=True)
class Answer(Generic[ResultT]):
    """The results of one request, in the order of its items, and the model that gave them."""

    model: str
    version: str
    results: Sequence[ResultT]
