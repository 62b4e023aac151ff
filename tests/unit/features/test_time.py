from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest

from conveyor.errors import InvalidArgument
from conveyor.features.time import calendar_waves, parse_frequency, parse_start, same_frequency, timestamps

START = datetime(2024, 1, 15, 12, tzinfo=UTC)


def test_a_time_without_offset_is_utc() -> None:
    """And one with an offset keeps it."""
    assert datetime(2024, 1, 1, tzinfo=UTC) == parse_start("2024-01-01")
    assert timedelta(hours=10) == parse_start("2024-01-01T00:00:00+10:00").utcoffset()
    assert datetime(2024, 1, 1, 6, tzinfo=UTC) == parse_start("2024-01-01T06:00:00Z")


@pytest.mark.parametrize("start", ["", "yesterday", "2024-13-01", "2024-01-01T25:00", "01/02/2024"])
def test_what_is_not_iso_8601_is_refused(start: str) -> None:
    """The error names the field."""
    with pytest.raises(InvalidArgument, match="ISO-8601") as refused:
        parse_start(start, field="series[0].start")
    assert "series[0].start" == refused.value.field


@pytest.mark.parametrize("frequency", ["", "fortnight", "0h", "-1h", "h" * 40, "9" * 30 + "h", "\ud800"])
def test_an_unknown_frequency_is_refused(frequency: str) -> None:
    """Zero, negative and endless steps too; the error names the field."""
    with pytest.raises(InvalidArgument, match="offset alias") as refused:
        parse_frequency(frequency, field="series[1].frequency")
    assert "series[1].frequency" == refused.value.field


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("1h", "60min", True),
        ("h", "1h", True),
        ("30min", "h", False),
        ("D", "24h", True),
        ("W", "W-SUN", True),
        ("7D", "W", False),
        ("MS", "ME", False),
        ("MS", "D", False),
        ("24h", "B", False),
    ],
)
def test_frequencies_are_compared_by_their_step(left: str, right: str, same: bool) -> None:
    """Not by their text, and either way round."""
    assert same is same_frequency(left, right)
    assert same is same_frequency(right, left)


@pytest.mark.parametrize(
    ("frequency", "times"),
    [
        ("30min", ["2024-01-15T12:00:00+00:00", "2024-01-15T12:30:00+00:00", "2024-01-15T13:00:00+00:00"]),
        ("MS", ["2024-01-15T12:00:00+00:00", "2024-02-01T12:00:00+00:00", "2024-03-01T12:00:00+00:00"]),
        ("2W", ["2024-01-15T12:00:00+00:00", "2024-01-28T12:00:00+00:00", "2024-02-11T12:00:00+00:00"]),
        ("3B", ["2024-01-15T12:00:00+00:00", "2024-01-18T12:00:00+00:00", "2024-01-23T12:00:00+00:00"]),
        ("ns", ["2024-01-15T12:00:00+00:00", "2024-01-15T12:00:00.000000001+00:00"]),
    ],
)
def test_step_k_is_k_offsets_after_the_start(frequency: str, times: list[str]) -> None:
    """The start itself is step 0 even where it lies between two offsets; any piece agrees with the whole."""
    assert times == timestamps(START, frequency, 0, len(times))
    assert times[1:] == timestamps(START, frequency, 1, len(times) - 1)
    assert [] == timestamps(START, frequency, 5, 0)


def test_timestamps_keep_the_offset_of_the_start() -> None:
    """The caller's clock is answered in the caller's clock."""
    start = datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=10)))
    assert ["2024-01-01T01:00:00+10:00"] == timestamps(start, "h", 1, 1)


@pytest.mark.parametrize("frequency", ["D", "YE"])
def test_times_beyond_the_calendar_are_refused(frequency: str) -> None:
    """ISO-8601 ends with the year 9999."""
    end = datetime(9999, 12, 31, tzinfo=UTC)
    with pytest.raises(InvalidArgument, match="9999"):
        timestamps(end, frequency, 1, 1)
    with pytest.raises(InvalidArgument, match="9999"):
        calendar_waves(end, frequency, 1, 1, ["time_of_day"])


@pytest.mark.parametrize("frequency", ["6h", "MS", "B"])
def test_calendar_waves_follow_the_definition(frequency: str) -> None:
    """Sine and cosine of the part of the day, week and year that has passed in UTC."""
    start = datetime(2023, 12, 30, 23, tzinfo=timezone(timedelta(hours=-5)))
    waves = calendar_waves(start, frequency, 2, 30, ["time_of_day", "day_of_week", "day_of_year"])
    expected = []
    for text in timestamps(start, frequency, 2, 30):
        time = datetime.fromisoformat(text).astimezone(UTC)
        seconds = time.hour * 3600 + time.minute * 60 + time.second
        turns = (seconds / 86_400, time.weekday() / 7, (time.timetuple().tm_yday - 1) / 365.25)
        expected.append([wave(2 * math.pi * turn) for turn in turns for wave in (math.sin, math.cos)])
    np.testing.assert_allclose(waves, expected, atol=1e-12)
