"""One item of `inputs` or `series` as JSON, as the values the use cases take. As strict as the doors."""

from __future__ import annotations

import math

from pydantic_core import from_json

from conveyor.domain import Series
from conveyor.errors import InvalidArgument
from conveyor.gateway.series_input import series_from_nested

__all__ = ["parse_line", "series_item", "text_item", "text_or_tokens_item"]

_SERIES_KEYS = ("values", "start", "frequency")


def parse_line(line: str | bytes, field: str) -> object:
    """Decodes one JSON value, strictly: no NaN, no Infinity, no number beyond float64, no lone surrogates.

    An integer stays an integer, however long; `series_item` refuses those that are no float64.

    Args:
        field: What the line is called, such as `line 3`.

    Raises:
        InvalidArgument: It is not JSON; a number that is not finite is named by its place in the value.
    """
    try:
        value: object = from_json(line.encode() if isinstance(line, str) else line, cache_strings="keys")
    except ValueError as fault:
        raise InvalidArgument(f"a line must hold one JSON value: {fault}", field=field) from fault
    place = _not_finite(value, field)
    if place is not None:
        raise InvalidArgument(
            f"{place} must be a finite number; NaN and Infinity are refused, a missing observation is null", field=place
        )
    return value


def text_item(value: object, field: str) -> str:
    """A text."""
    if not isinstance(value, str):
        raise InvalidArgument("a text is accepted here", field=field)
    return value


def text_or_tokens_item(value: object, field: str) -> str | list[str]:
    """A text, or a list of tokens."""
    if isinstance(value, list):
        return [text_item(token, f"{field}[{index}]") for index, token in enumerate(value)]
    return text_item(value, field)


def series_item(value: object, field: str) -> Series:
    """An object with `values` and optionally `start` and `frequency`."""
    if not isinstance(value, dict) or "values" not in value:
        raise InvalidArgument("an object with values, and optionally start and frequency, is accepted", field=field)
    unknown = [key for key in value if key not in _SERIES_KEYS]
    if unknown:
        raise InvalidArgument(f"unknown field; accepted are {', '.join(_SERIES_KEYS)}", field=f"{field}.{unknown[0]}")
    for name in ("start", "frequency"):
        if not isinstance(value.get(name), (str, type(None))):
            raise InvalidArgument("a text is accepted here", field=f"{field}.{name}")
    return series_from_nested(value["values"], value.get("start"), value.get("frequency"), field)


def _not_finite(value: object, place: str) -> str | None:
    """Returns the place of the first number that is not finite. The parser has bounded the depth."""
    if isinstance(value, float):
        return None if math.isfinite(value) else place
    if isinstance(value, dict):
        parts = ((f"{place}.{key}", part) for key, part in value.items())
    elif isinstance(value, list):
        parts = ((f"{place}[{index}]", part) for index, part in enumerate(value))
    else:
        return None
    return next(filter(None, (_not_finite(part, where) for where, part in parts)), None)
