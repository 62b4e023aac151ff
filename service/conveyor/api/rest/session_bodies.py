"""The bodies of the session routes, as they are checked and as they are documented.

The small ones that come often are first read by msgspec, which knows only what is right; whatever it refuses is read
again by pydantic, which says what is wrong and where. Both take the same bodies.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Annotated

import msgspec
import numpy as np
from pydantic import BeforeValidator, ConfigDict, FailFast, Field
from pydantic_core import PydanticCustomError

from conveyor.api.rest.bodies import Levels, StrictBody, Values, within_limit
from conveyor.api.rest.parsing import parse_body
from conveyor.errors import InvalidArgument
from conveyor.gateway.json_kind import kind_of
from conveyor.gateway.limits import Limits
from conveyor.gateway.observations import Appends, Observations
from conveyor.gateway.series_input import values_from_nested

__all__ = [
    "Append",
    "AppendBody",
    "AppendMany",
    "AppendManyBody",
    "MessageBody",
    "OpenBody",
    "read_append",
    "read_append_many",
    "read_observations",
]

_VALUES = "One row of features per step, or plain numbers for one feature. null is missing."
_HORIZON = "Steps to forecast from the state after these; no forecast if left out."
_LEVELS = "Levels between the lowest and the highest trained one; those if left out."
_EXPECTED = "Steps that the session should have before; if it has others, nothing is applied."


class OpenBody(StrictBody):
    """A session to open."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"model": "forecast-electricity", "values": [5310.0, 5122.5], "start": "2024-03-01T00:00:00Z"}]
        }
    )

    model: str = Field(description="Name of a streamable model; its highest version that serves is taken.")
    values: Values = Field(default=None, description=f"History. {_VALUES}")
    start: str | None = Field(
        default=None, description="ISO-8601 time of the first step; a time without an offset is UTC."
    )
    frequency: str | None = Field(default=None, description="pandas offset alias of one step, such as `30min`.")


class AppendBody(StrictBody):
    """What a session takes in next."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"values": [4990.25], "horizon": 2, "expected_steps": 2}]}
    )

    values: Values = Field(description=_VALUES)
    horizon: int | None = Field(default=None, description=_HORIZON)
    quantiles: Levels | None = Field(default=None, description=_LEVELS)
    expected_steps: int | None = Field(default=None, description=_EXPECTED)


class AppendItemBody(StrictBody):
    """What one of many sessions takes in next."""

    session: str
    values: Values = Field(description=_VALUES)
    expected_steps: int | None = Field(default=None, description=_EXPECTED)


class AppendManyBody(StrictBody):
    """What many sessions take in next; each item succeeds or fails alone."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "items": [
                        {"session": "forecast-electricity.1.0f3a5c7e9b1d2f4a6c8e0b1d3f5a7c9e", "values": [4990.25]},
                        {"session": "forecast-electricity.1.1d2f4a6c8e0b1d3f5a7c9e0f3a5c7e9b", "values": [512.0, None]},
                    ]
                }
            ]
        }
    )

    items: Annotated[list[AppendItemBody], FailFast(), BeforeValidator(within_limit)]
    horizon: int | None = Field(default=None, description=_HORIZON)
    quantiles: Levels | None = Field(default=None, description=_LEVELS)


def _as_message_id(value: object) -> object:
    """One fault for the field, not one for each type that it could have."""
    if value is not None and type(value) not in (str, int):
        raise PydanticCustomError("shape", "must be a string or an integer; got {kind}", {"kind": kind_of(value)})
    return value


class MessageBody(AppendBody):
    """A message of a session's WebSocket."""

    id: Annotated[str | int | None, BeforeValidator(_as_message_id)] = Field(
        default=None, description="Comes back with the answer."
    )


@dataclass(frozen=True, slots=True)
class Append:
    """An append that was read. id: the message's, None if it has none."""

    observations: Observations
    horizon: int | None
    quantiles: Sequence[float] | None
    expected_steps: int | None
    id: str | int | None = None


class _Message(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A message of plain numbers; without an id it is the body of an append."""

    values: list[float | None]
    horizon: int | None = None
    quantiles: list[float] | None = None
    expected_steps: int | None = None
    id: str | int | None = None


class _Item(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    session: str
    values: list[float | None]
    expected_steps: int | None = None


class _Many(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    items: list[_Item]
    horizon: int | None = None
    quantiles: list[float] | None = None


@dataclass(frozen=True, slots=True)
class AppendMany:
    """Appends to many sessions that were read."""

    appends: Appends
    horizon: int | None
    quantiles: Sequence[float] | None


_MESSAGE = msgspec.json.Decoder(_Message)
_MANY = msgspec.json.Decoder(_Many)


def read_observations(values: object, field: str, limits: Limits) -> Observations:
    """Observations as JSON has them.

    Raises:
        InvalidArgument: They are not numbers, or too many; names the place below `field`.
    """
    steps = values_from_nested(values, field, max_values=limits.series_values)
    return Observations(steps.reshape(-1), steps.shape[1])


def read_append(raw: bytes, limits: Limits, *, message: bool = False) -> Append:
    """Reads the body of an append, or a message of a WebSocket.

    Raises:
        InvalidArgument: It is neither; names the field.
    """
    with suppress(msgspec.MsgspecError):
        fast = _MESSAGE.decode(raw)
        if len(fast.values) <= limits.series_values and (message or fast.id is None):
            observations = Observations(np.array(fast.values, dtype=np.float64), 1)
            return Append(observations, fast.horizon, fast.quantiles, fast.expected_steps, fast.id)
    if not message:
        body = parse_body(AppendBody, raw, limits)
        observations = read_observations(body.values, "values", limits)
        return Append(observations, body.horizon, body.quantiles, body.expected_steps)
    body = parse_body(MessageBody, raw, limits)
    observations = read_observations(body.values, "values", limits)
    return Append(observations, body.horizon, body.quantiles, body.expected_steps, body.id)


def read_append_many(raw: bytes, limits: Limits) -> AppendMany:
    """Reads appends to many sessions. Values that can't be read are a fault of their item alone.

    Raises:
        InvalidArgument: The body is of another shape; names the field.
    """
    with suppress(msgspec.MsgspecError):
        many = _MANY.decode(raw)
        values = [item.values for item in many.items]
        columns = Appends(
            sessions=[item.session for item in many.items],
            values=np.array(list(chain.from_iterable(values)), dtype=np.float64),
            sizes=list(map(len, values)),
            widths=1,
            expected=[item.expected_steps for item in many.items],
        )
        return AppendMany(columns, many.horizon, many.quantiles)
    body = parse_body(AppendManyBody, raw, limits)
    read: list[Observations] = []
    faults: dict[int, InvalidArgument] = {}
    for index, item in enumerate(body.items):
        try:
            read.append(read_observations(item.values, f"items[{index}].values", limits))
        except InvalidArgument as error:
            faults[index] = error
            read.append(Observations(np.empty(0), 1))
    appends = Appends(
        sessions=[item.session for item in body.items],
        values=np.concatenate([np.empty(0), *(part.values for part in read)]),
        sizes=[part.values.size for part in read],
        widths=[part.width or 1 for part in read],
        expected=[item.expected_steps for item in body.items],
        faults=faults,
    )
    return AppendMany(appends, body.horizon, body.quantiles)
