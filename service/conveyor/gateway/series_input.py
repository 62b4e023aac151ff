"""Series as callers write them, as arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import cast

import numpy as np
import numpy.typing as npt

from conveyor.domain import Series
from conveyor.errors import InvalidArgument
from conveyor.features.time import parse_start
from conveyor.gateway.json_kind import kind_of

__all__ = ["series_from_flat", "series_from_nested", "values_from_nested"]

_NUMBER_TYPES = frozenset({int, float, type(None)})


def series_from_nested(
    values: object, start: str | None, frequency: str | None, field: str, *, max_values: int | None = None
) -> Series:
    """Makes a series from decoded JSON: plain numbers (one feature) or rows of numbers; None is a missing observation.

    Lists are read as what their first item that is not None is. Takes any value that JSON can hold.

    Args:
        field: Where the series stands in the request, such as `series[0]`.
        max_values: Most values, over all features; checked before any of them is looked at. None: no bound.

    Raises:
        InvalidArgument: The values are not numbers, not finite, too many or of rows that differ in length, or `start`
            is not ISO-8601.
    """
    return _series(values_from_nested(values, f"{field}.values", max_values=max_values), start, frequency, field)


def values_from_nested(values: object, where: str, *, max_values: int | None = None) -> npt.NDArray[np.float64]:
    """The values of a series, float64 [steps, features], from decoded JSON; as `series_from_nested` reads them.

    Args:
        where: Where the values stand in the request, such as `series[0].values`.
    """
    if not isinstance(values, list):
        raise InvalidArgument(f"{where} must be a list; got {kind_of(values)}", field=where)
    first = next((value for value in values if value is not None), None)
    rows = isinstance(first, list)
    width = len(first) if isinstance(first, list) else 1
    _check_size(len(values) * max(width, 1), max_values, where)
    array = _converted(values, width if rows else None)
    if array is None:
        raise _first_fault(values, width if rows else None, where)
    return array


def series_from_flat(
    values: Sequence[float],
    features: int,
    start: str,
    frequency: str,
    field: str,
    *,
    max_values: int | None = None,
) -> Series:
    """Makes a series from row-major numbers as protobuf carries them: NaN is a missing observation, and what proto3
    cannot tell from "not given" is not given: no `features` means one.

    Args:
        max_values: As for `series_from_nested`.

    Raises:
        InvalidArgument: There are too many values, `features` is negative or does not divide their number, or `start`
            is not ISO-8601.
    """
    _check_size(len(values), max_values, f"{field}.values")
    features = features or 1
    if features < 0 or len(values) % features:
        raise InvalidArgument(
            f"features must be positive and divide the number of values ({len(values)}); got {features}",
            field=f"{field}.features",
        )
    array = np.array(values, dtype=np.float64).reshape(-1, features)
    return _series(array, start or None, frequency or None, field)


def _check_size(count: int, max_values: int | None, field: str) -> None:
    if max_values is not None and count > max_values:
        raise InvalidArgument(f"the series has {count} values; at most {max_values} are accepted", field=field)


def _converted(values: list[object], width: int | None) -> npt.NDArray[np.float64] | None:
    """float64 [steps, features] if all is as it should be, else None. `width` is None for plain numbers.

    Looks at no value in Python: a loop over a hundred thousand of them takes ten times as long.
    """
    numbers = values
    if width is not None:
        if set(map(type, values)) != {list}:
            return None
        rows = cast(list[list[object]], values)
        if set(map(len, rows)) != {width}:
            return None
        numbers = list(chain.from_iterable(rows))
    if not _NUMBER_TYPES.issuperset(map(type, numbers)):
        return None
    try:
        array = np.array(numbers, dtype=np.float64)  # None becomes NaN
    except OverflowError:
        return None
    if np.isinf(array).any() or np.count_nonzero(np.isnan(array)) != numbers.count(None):
        return None
    return array.reshape(len(values), 1 if width is None else width)


def _first_fault(values: list[object], width: int | None, where: str) -> InvalidArgument:
    """Finds, value by value, what `_converted` stumbled over."""
    for index, row in enumerate(values):
        at = f"{where}[{index}]"
        if width is None:
            fault = _number_fault(row, at)
        elif not isinstance(row, list):
            fault = InvalidArgument(f"{at} must be a list; got {kind_of(row)}", field=at)
        elif len(row) != width:
            fault = InvalidArgument(
                f"every row must have as many numbers as the first, {width}; this one has {len(row)}", field=at
            )
        else:
            faults = (_number_fault(number, f"{at}[{column}]") for column, number in enumerate(row))
            fault = next(filter(None, faults), None)
        if fault is not None:
            return fault
    raise AssertionError("the fast and the careful reading of a series disagree")


def _number_fault(value: object, field: str) -> InvalidArgument | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return InvalidArgument(f"{field} must be a number; got {kind_of(value)}", field=field)
    try:
        finite = math.isfinite(value)
    except OverflowError:  # an integer of hundreds of digits
        finite = False
    if finite:
        return None
    return InvalidArgument(
        f"{field} must be a finite number; NaN and Infinity are refused, a missing observation is null", field=field
    )


def _series(array: npt.NDArray[np.float64], start: str | None, frequency: str | None, field: str) -> Series:
    parsed = None if start is None else parse_start(start, field=f"{field}.start")
    return Series(array, parsed, frequency)
