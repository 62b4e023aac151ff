"""Times of the steps of a series: ISO-8601 text, pandas offset aliases, positions in the calendar.

Step 0 is at the start itself, step k is k offsets later. The only module of the package's serving side that imports
pandas, which costs a third of a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import MAXYEAR, UTC, datetime, timedelta, timezone
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.tseries.frequencies import to_offset
from pandas.tseries.offsets import BaseOffset, Day, Tick

from conveyor.errors import InvalidArgument
from conveyor.spec import Calendar

__all__ = [
    "calendar_waves",
    "check_span",
    "fixed_step_us",
    "parse_frequency",
    "parse_start",
    "same_frequency",
    "timestamps",
    "waves_at",
]

_MAX_ALIAS: Final = 32  # code points; the longest alias in use is far shorter
_ACCEPTED: Final = "a pandas offset alias of a positive step is accepted, such as '30min', 'h', 'D', 'B' or 'MS'"
_DAY_US: Final = 86_400 * 10**6
_EPOCH_WEEKDAY: Final = 3  # the first of January 1970 was a Thursday; Monday is 0


def parse_start(start: str, *, field: str = "start") -> datetime:
    """Reads an ISO-8601 date or time; one without an offset is UTC, another keeps its offset.

    Raises:
        InvalidArgument: The text is not ISO-8601; names `field`.
    """
    try:
        return _aware(datetime.fromisoformat(start))
    except ValueError as error:
        raise InvalidArgument(
            "the time must be ISO-8601, such as 2024-05-01T00:30:00+00:00; without an offset it is UTC", field=field
        ) from error


def parse_frequency(frequency: str, *, field: str = "frequency") -> BaseOffset:
    """Reads a pandas offset alias.

    Raises:
        InvalidArgument: pandas does not know the alias, or the step is not positive; names `field`.
    """
    try:
        offset = _offset(frequency) if len(frequency) <= _MAX_ALIAS else None
    except (ValueError, OverflowError):
        offset = None
    if offset is None or offset.n <= 0:
        raise InvalidArgument(f"the frequency is not known; {_ACCEPTED}", field=field)
    return offset


def same_frequency(frequency: str, other: str, *, field: str = "frequency") -> bool:
    """Tells whether two aliases mean the same step (`1h` and `60min` do, and `24h` and `D`, as times are UTC).

    Raises:
        InvalidArgument: One of them cannot be read; names `field`.
    """
    left, right = parse_frequency(frequency, field=field), parse_frequency(other, field=field)
    fixed = _microseconds(left)
    return left == right if fixed is None else fixed == _microseconds(right)


def timestamps(start: datetime, frequency: str, first_step: int, count: int) -> list[str]:
    """Gives the times of steps `first_step` to `first_step + count - 1` as ISO-8601 text with the offset of `start`.

    Raises:
        InvalidArgument: `frequency` cannot be read, or a time lies beyond the year 9999.
    """
    offset, origin = parse_frequency(frequency), _aware(start)
    step_us = _microseconds(offset)
    try:
        if step_us is None:
            return [time.isoformat() for time in _calendar_steps(origin, offset, first_step, count)]
        step = timedelta(microseconds=step_us)
        return [(origin + index * step).isoformat() for index in range(first_step, first_step + count)]
    except OverflowError as error:
        raise _beyond() from error


def check_span(start: datetime, frequency: str, last_step: int, *, field: str) -> None:
    """Makes sure that every time from `start` to step `last_step` can be written, as it is and in UTC.

    Raises:
        InvalidArgument: One lies outside the years 1 to 9999; names `field`.
    """
    try:
        for step in (0, last_step):
            timestamps(start, frequency, step, 1)
            _utc_times(start, frequency, step, 1)
    except InvalidArgument as error:
        raise InvalidArgument(error.message, field=field) from error


def calendar_waves(
    start: datetime, frequency: str, first_step: int, count: int, items: Sequence[Calendar]
) -> npt.NDArray[np.float64]:
    """Gives sine and cosine of each calendar item at each step, in UTC; float64 [count, 2 * items].

    The turn of `time_of_day` is a day, of `day_of_week` seven days from Monday on (whole days), of `day_of_year`
    365.25 days from the first of January on (whole days).

    Raises:
        InvalidArgument: As for `timestamps`.
    """
    if not count or not items:
        return np.zeros((count, 2 * len(items)))
    return waves_at(_utc_times(start, frequency, first_step, count), items)


def waves_at(times: npt.NDArray[np.datetime64], items: Sequence[Calendar]) -> npt.NDArray[np.float64]:
    """The same at any times: datetime64[us] [...], in UTC → float64 [..., 2 * items]."""
    waves = np.empty((*times.shape, 2 * len(items)))
    days = times.astype("datetime64[D]")
    for index, item in enumerate(items):
        if item == "time_of_day":
            turn = (times - days) / np.timedelta64(1, "D")
        elif item == "day_of_week":
            turn = (days.astype(np.int64) + _EPOCH_WEEKDAY) % 7 / 7
        else:
            turn = (days - days.astype("datetime64[Y]")).astype(np.int64) / 365.25
        waves[..., 2 * index] = np.sin(2 * np.pi * turn)
        waves[..., 2 * index + 1] = np.cos(2 * np.pi * turn)
    return waves


def fixed_step_us(frequency: str) -> int | None:
    """Microseconds of a step that always takes the same time, None of one that follows the calendar.

    Raises:
        InvalidArgument: The frequency cannot be read.
    """
    return _microseconds(parse_frequency(frequency))


def _utc_times(start: datetime, frequency: str, first_step: int, count: int) -> npt.NDArray[np.datetime64]:
    """datetime64[us] [count], in UTC. Steps of one length are left to numpy: a session's step waits for this."""
    offset, origin = parse_frequency(frequency), _aware(start)
    step_us = _microseconds(offset)
    try:
        if step_us is None:
            index = _calendar_steps(origin, offset, first_step, count).tz_convert("UTC").tz_localize(None)
            return index.to_numpy().astype("datetime64[us]")
        utc = origin.astimezone(UTC)
        _ = utc + (first_step + count - 1) * timedelta(microseconds=step_us)  # raises where numpy would wrap around
        return np.datetime64(utc.replace(tzinfo=None), "us") + step_us * np.arange(first_step, first_step + count)
    except OverflowError as error:
        raise _beyond() from error


def _calendar_steps(origin: datetime, offset: BaseOffset, first_step: int, count: int) -> pd.DatetimeIndex:
    """Times of steps whose length follows the calendar. Raises OverflowError beyond the year 9999."""
    try:
        first = pd.Timestamp(origin)
        # Adding no offset at all would still move a start that lies between two of them, such as a 15th with "MS".
        if first_step:
            first += first_step * offset
        times = pd.date_range(first + offset, periods=max(count - 1, 0), freq=offset).insert(0, first)[:count]
    except ValueError as error:  # pandas' OutOfBoundsDatetime is one
        raise OverflowError from error
    if count and times[-1].year > MAXYEAR:
        raise OverflowError
    return times


def _beyond() -> InvalidArgument:
    return InvalidArgument(f"the series reaches outside the years 1 to {MAXYEAR}", field="start")


def _aware(time: datetime) -> datetime:
    """The same time with an offset that stays: adding to a time of a named zone would follow its clock changes."""
    return time.replace(tzinfo=timezone(time.utcoffset() or timedelta()))


@lru_cache(maxsize=256)
def _offset(frequency: str) -> BaseOffset:
    return to_offset(frequency)


def _microseconds(offset: BaseOffset) -> int | None:
    """Length of a step that is always the same, None of one that follows the calendar."""
    if isinstance(offset, Day):
        return offset.n * _DAY_US
    if isinstance(offset, Tick) and offset.nanos % 1000 == 0:
        return offset.nanos // 1000
    return None
