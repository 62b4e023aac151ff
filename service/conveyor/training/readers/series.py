"""Files of numbers over time."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from datetime import datetime
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.tseries.frequencies import to_offset

from conveyor.errors import InvalidArgument
from conveyor.training.examples import SeriesTable
from conveyor.training.readers.files import open_text

__all__ = ["read_bare_series", "read_series_csv", "read_series_rows", "slice_series"]

_MISSING = {"", "NA", "NaN", "nan", "null"}
_TIME_PARTS = ("year", "month", "day", "hour")


def read_series_csv(path: Path) -> list[SeriesTable]:
    """Reads a CSV with a header as one series.

    The first column, or columns year, month, day and hour, hold the times; a time without offset is UTC. Columns that
    are not numbers are left out. NA is missing, and so is a step whose time is absent.

    Raises:
        InvalidArgument: The file has no times, or they do not lie on an even grid.
    """
    with open_text(path) as file:
        rows = list(csv.reader(file))
    header, body = rows[0], rows[1:]
    columns = dict(zip(header, zip(*body, strict=True), strict=True))
    times, used = _times(columns, path)
    frequency = _frequency(times)
    grid = pd.date_range(times[0], times[-1], freq=frequency)
    if times.has_duplicates or not times.isin(grid).all():
        raise InvalidArgument(f"{path}: its times do not lie on an even grid")
    numbers = {name: _numbers(cells) for name, cells in columns.items() if name not in used}
    frame = pd.DataFrame({name: values for name, values in numbers.items() if values is not None}, index=times)
    start: datetime = times[0].to_pydatetime()
    return [SeriesTable(tuple(frame.columns), frame.reindex(grid).to_numpy(), start, frequency)]


def read_series_rows(path: Path) -> list[SeriesTable]:
    """Reads a CSV with a header and a series a row, its name first, empty cells after its end (M4)."""
    tables = []
    with open_text(path) as file:
        for row in list(csv.reader(file))[1:]:
            last = max((index for index, cell in enumerate(row) if cell), default=0)
            tables.append(SeriesTable(("value",), _require(row[1 : last + 1], path)[:, None]))
    return tables


def read_bare_series(path: Path) -> list[SeriesTable]:
    """Reads a CSV without header or times as one series; columns are named `c0`, `c1`, …"""
    with open_text(path) as file:
        rows = list(csv.reader(file))
    width = len(rows[0])
    flat = _require(list(chain.from_iterable(rows)), path)
    if flat.size != len(rows) * width:
        raise InvalidArgument(f"{path}: its rows differ in length")
    return [SeriesTable(tuple(f"c{index}" for index in range(width)), flat.reshape(-1, width))]


def slice_series(
    table: SeriesTable, columns: Sequence[str], since: datetime | None, until: datetime | None
) -> SeriesTable:
    """The steps from `since` until before `until`, and only these columns; all of them where nothing is named.

    Raises:
        InvalidArgument: A column is unknown, or a time is asked of a series without times.
    """
    unknown = [name for name in columns if name not in table.columns]
    if unknown:
        raise InvalidArgument(f"columns {unknown} are not among {list(table.columns)}")
    first, last, start = 0, len(table.values), table.start
    if since is not None or until is not None:
        if table.start is None or table.frequency is None:
            raise InvalidArgument("'since' and 'until' need a series with times")
        times = pd.date_range(table.start, periods=last, freq=table.frequency)
        first = 0 if since is None else int(times.searchsorted(pd.Timestamp(since)))
        last = last if until is None else int(times.searchsorted(pd.Timestamp(until)))
        start = times[first].to_pydatetime() if first < len(times) else None
    names = tuple(columns) or table.columns
    picked = [table.columns.index(name) for name in names]
    return SeriesTable(names, table.values[first:last, picked], start, table.frequency)


def _times(columns: dict[str, tuple[str, ...]], path: Path) -> tuple[pd.DatetimeIndex, set[str]]:
    if all(name in columns for name in _TIME_PARTS):
        parts = pd.DataFrame({name: pd.to_numeric(pd.Series(columns[name])) for name in _TIME_PARTS})
        return pd.DatetimeIndex(pd.to_datetime(parts, utc=True)), {*_TIME_PARTS, "No"}
    name = next(iter(columns))
    try:
        return pd.DatetimeIndex(pd.to_datetime(list(columns[name]), utc=True, format="ISO8601")), {name}
    except ValueError as error:
        raise InvalidArgument(f"{path}: its first column {name!r} does not hold times") from error


def _frequency(times: pd.DatetimeIndex) -> str:
    """The offset alias of the most frequent gap; months and years by their first day."""
    gaps, counts = np.unique(np.diff(times.as_unit("ns").asi8), return_counts=True)
    if not len(gaps) or gaps[0] <= 0:
        return "D"
    step = pd.Timedelta(int(gaps[counts.argmax()]), unit="ns")
    if (times == times.normalize()).all() and (times.day == 1).all() and step >= pd.Timedelta(days=28):
        return "MS" if step < pd.Timedelta(days=365) else "YS"
    days, rest = divmod(step, pd.Timedelta(days=1))
    alias: str = to_offset(step if rest else f"{days}D").freqstr
    return alias


def _numbers(cells: Sequence[str]) -> npt.NDArray[np.float64] | None:
    try:
        return np.array([np.nan if cell in _MISSING else float(cell) for cell in cells])
    except ValueError:
        return None


def _require(cells: Sequence[str], path: Path) -> npt.NDArray[np.float64]:
    values = _numbers(cells)
    if values is None:
        raise InvalidArgument(f"{path}: a cell is not a number")
    return values
