"""The bodies of requests, as they are checked and as they are documented.

Checked here is the shape only: types, names, and how many items there are, before each of them is looked at.
What the values may be is the gateway's to say, for every door alike. Validation takes the limits as its context.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    FailFast,
    Field,
    Tag,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError
from typing_extensions import TypeAliasType

from conveyor.domain import Series
from conveyor.gateway.json_kind import kind_of
from conveyor.gateway.limits import Limits
from conveyor.gateway.series_input import series_from_nested

__all__ = [
    "READINGS",
    "ForecastBody",
    "Levels",
    "SentimentBody",
    "SeriesBody",
    "StrictBody",
    "TagBody",
    "TaskBody",
    "Values",
    "within_limit",
]

# How a list may be read. The validator puts the reading into the path of a fault, where it is not a field's name.
READINGS = frozenset({"<rows>", "<plain>"})

_EXAMPLE_TEXT = "The plot is thin, but the acting carries it."


def _as_list(value: object, info: ValidationInfo) -> object:
    """One text stands for a list of it."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise PydanticCustomError("shape", "must be a string or a list; got {kind}", {"kind": kind_of(value)})
    return within_limit(value, info)


def within_limit(value: object, info: ValidationInfo) -> object:
    """Refuses a list of too many items before any of them is looked at; a validator."""
    limits = cast(Limits, info.context)
    if isinstance(value, list) and len(value) > limits.items:
        raise PydanticCustomError(
            "count", "has {count} items; at most {limit} are accepted", {"count": len(value), "limit": limits.items}
        )
    return value


def _first_kind(value: object) -> Literal["<rows>", "<plain>"]:
    """A list is read as what its first item is, so that a fault is told about that reading alone."""
    first = next((item for item in value if item is not None), None) if isinstance(value, list) else None
    return "<rows>" if isinstance(first, list) else "<plain>"


class StrictBody(BaseModel):
    """A JSON object of known fields and exact types."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _fields_are_known(cls, value: object) -> object:
        """Refuses the first unknown field: pydantic would collect every one, millions in a hostile body."""
        fields = cls.__pydantic_fields__
        if isinstance(value, dict) and not value.keys() <= fields.keys():
            for key in value:
                if key not in fields:
                    accepted = ", ".join(fields)
                    raise PydanticCustomError(
                        "unknown_field", "is unknown; accepted are: {accepted}", {"accepted": accepted, "key": key}
                    )
        return value


class TaskBody(StrictBody):
    """What the bodies of all tasks share."""

    model: str | None = Field(default=None, description="Name of a model; the task's default if left out.")
    version: str | None = Field(default=None, description="Version of the model; the highest that serves if left out.")


_ReadAsRows = Tag("<rows>")
_ReadAsPlain = Tag("<plain>")
# Named types, because a union hashes its members and FailFast cannot be hashed.
_Texts = TypeAliasType("_Texts", Annotated[list[str], FailFast()])
_TokenLists = TypeAliasType("_TokenLists", Annotated[list[_Texts], FailFast()])
Levels = TypeAliasType("Levels", Annotated[list[float], FailFast()])


def _numbers(at_least: int) -> WithJsonSchema:
    number = {"type": ["number", "null"]}
    forms: list[dict[str, Any]] = [{"type": "array", "items": number}]
    forms.append({"type": "array", "items": {"type": "array", "items": number}})
    return WithJsonSchema({"anyOf": [form | {"minItems": at_least} if at_least else form for form in forms]})


# Not checked here: there may be millions, and what makes an array of them checks them on the way.
Values = Annotated[Any, _numbers(0)]
_SomeValues = Annotated[Any, _numbers(1)]


class SentimentBody(TaskBody):
    """Texts to classify."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"inputs": [_EXAMPLE_TEXT, "I want my evening back."]}]})

    inputs: Annotated[
        _Texts,
        BeforeValidator(_as_list),
        WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}),
    ] = Field(description="One text or a list of texts. An empty text is valid.")


class TagBody(TaskBody):
    """Texts, or tokens, to tag."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"inputs": "Anna moved to Porto in May."}]})

    inputs: Annotated[
        Annotated[_Texts, _ReadAsPlain] | Annotated[_TokenLists, _ReadAsRows],
        Discriminator(_first_kind),
        BeforeValidator(_as_list),
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "string"},
                    {"type": "array", "items": {"type": "string"}, "minItems": 1},
                    {"type": "array", "items": {"type": "array", "items": {"type": "string"}}, "minItems": 1},
                ]
            }
        ),
    ] = Field(description="One text, a list of texts, or a list of texts already split into tokens.")

    def texts_or_tokens(self) -> tuple[list[str], None] | tuple[None, list[list[str]]]:
        """Returns the inputs as texts, or as token lists; an empty list is texts."""
        if self.inputs and isinstance(self.inputs[0], list):
            return None, self.inputs
        return cast(list[str], self.inputs), None


class SeriesBody(StrictBody):
    """A history to forecast from."""

    values: _SomeValues = Field(
        description="One row of features per step, or plain numbers for one feature. null is missing."
    )
    start: str | None = Field(
        default=None, description="ISO-8601 time of the first step; a time without an offset is UTC."
    )
    frequency: str | None = Field(default=None, description="pandas offset alias of one step, such as `30min`.")

    def to_series(self, field: str, limits: Limits) -> Series:
        """Returns the series that stands in the request as `field`.

        Raises:
            InvalidArgument: As `series_from_nested`.
        """
        return series_from_nested(self.values, self.start, self.frequency, field, max_values=limits.series_values)


class ForecastBody(TaskBody):
    """Series to forecast."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "series": [
                        {
                            "values": [5310.0, 5122.5, None, 4870.25],
                            "start": "2024-03-01T00:00:00Z",
                            "frequency": "30min",
                        }
                    ],
                    "horizon": 2,
                    "quantiles": [0.1, 0.9],
                }
            ]
        }
    )

    series: Annotated[list[SeriesBody], FailFast(), BeforeValidator(within_limit)] = Field(
        description="One series or more."
    )
    horizon: int | None = Field(default=None, description="Steps to forecast; the model's default if left out.")
    quantiles: Levels | None = Field(
        default=None, description="Levels between the lowest and the highest trained one; those if left out."
    )
