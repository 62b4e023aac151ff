"""What waits for the device: bounded, ordered by urgency, and by length where that is asked. Pure."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from conveyor.wire.messages import Inputs

__all__ = ["Backlog", "BacklogLimits", "Queue", "Row"]

KeyT = TypeVar("KeyT", bound=Hashable)
EntryT = TypeVar("EntryT", bound=tuple[Any, ...])

# To go through a list costs less than to find a place for each of some rows, if it is at most so many times as long.
_SIEVED = 8


@dataclass(frozen=True, slots=True)
class BacklogLimits:
    """Bounds over everything that waits: rows bound the bookkeeping, steps the memory."""

    rows: int
    steps: int


class Row(NamedTuple):
    """A row that waits. Rows are in order of urgency: by when they are due, then by id, which no two have in common.

    due: monotonic seconds by which it should run; the earliest goes first. Never after the deadline.
    length: steps of the row.
    deadline: monotonic seconds after which it must not run.
    arrival: monotonic seconds.
    inputs: int32 or float32 [length, width].
    """

    due: float
    id: int
    length: int
    deadline: float
    arrival: float
    inputs: Inputs


class Queue:
    """The rows of one model that wait: by urgency, and, once somebody has asked, by length too. At least one row.

    Orders are plain lists: up to some ten thousand rows, to move what stands behind a place costs less than a tree
    costs at any size. Rows come and go many at a time, and mostly come in order: a list is merged and sieved faster
    than row by row.
    """

    def __init__(self) -> None:
        self._by_due: list[Row] = []
        self._by_length: list[tuple[int, float, int, Row]] | None = None
        # Not in these orders yet: they are made when somebody asks.
        self._added: list[Row] = []
        # No deadline is earlier. It may be that of a row that has gone.
        self._earliest = math.inf

    def __len__(self) -> int:
        return len(self._by_due) + len(self._added)

    def __iter__(self) -> Iterator[Row]:
        self._settle()
        return iter(self._by_due)

    def add(self, rows: Sequence[Row]) -> None:
        """Adds rows."""
        self._added += rows
        self._earliest = min(self._earliest, min([row.deadline for row in rows]))

    def remove(self, rows: Sequence[Row]) -> None:
        """Removes rows that are inside."""
        self._settle()
        self._by_due = _without(self._by_due, list(rows), 1)
        if self._by_length is not None:
            self._by_length = _without(self._by_length, list(map(_with_length, rows)), 2)

    def most_urgent(self) -> Row:
        """The row that is due first."""
        self._settle()
        return self._by_due[0]

    def like(self, row: Row, longest: float = math.inf) -> Iterator[Row]:
        """The rows of up to `longest` steps, `row` itself first, then by how near their length is to its."""
        self._settle()
        order, length = self._by_length, row.length
        if order is None:
            order = self._by_length = sorted(map(_with_length, self._by_due))
        shorter = bisect_left(order, (length, row.due, row.id)) - 1
        longer = shorter + 2
        last = len(order) if longest == math.inf else bisect_left(order, (longest + 1,))
        yield row
        while shorter >= 0 or longer < last:
            if longer >= last or (shorter >= 0 and length - order[shorter][0] <= order[longer][0] - length):
                yield order[shorter][3]
                shorter -= 1
            else:
                yield order[longer][3]
                longer += 1

    def expired(self, now: float) -> list[Row]:
        """The rows whose deadline has passed, those due first before the others."""
        if now < self._earliest:
            return []
        self._settle()
        self._earliest = min([row.deadline for row in self._by_due])
        return [row for row in self._by_due if row.deadline <= now]

    def _settle(self) -> None:
        added = self._added
        if added:
            self._added = []
            _merge(self._by_due, added)
            if self._by_length is not None:
                _merge(self._by_length, list(map(_with_length, added)))


class Backlog(Generic[KeyT]):
    """Rows by key, such as a model; one bound for all of them. Ids are unique over all keys."""

    def __init__(self, limits: BacklogLimits) -> None:
        self._limits = limits
        self._queues: dict[KeyT, Queue] = {}
        self._rows: dict[int, tuple[KeyT, Row]] = {}
        self._steps = 0

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, key: KeyT, rows: Sequence[Row]) -> Sequence[int]:
        """Queues rows; returns the ids of those that found no room. A row that waits alone always fits."""
        count, steps = len(self._rows), self._steps + sum([row.length for row in rows])
        refused: list[int] = []
        if count + len(rows) > self._limits.rows or steps > self._limits.steps:
            fitting = []
            steps = self._steps
            for row in rows:
                full = count >= self._limits.rows or steps + row.length > self._limits.steps
                if full and count:
                    refused.append(row.id)
                else:
                    fitting.append(row)
                    count += 1
                    steps += row.length
            rows = fitting
        if rows:
            self._put(key, rows, steps)
        return refused

    def put_back(self, key: KeyT, row: Row) -> None:
        """Queues a row that was accepted before, whether there is room or not."""
        self._put(key, [row], self._steps + row.length)

    def _put(self, key: KeyT, rows: Sequence[Row], steps: int) -> None:
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = Queue()
        queue.add(rows)
        for row in rows:
            self._rows[row.id] = key, row
        self._steps = steps

    def remove(self, ids: Iterable[int]) -> None:
        """Drops rows; ids that do not wait are ignored."""
        found: dict[KeyT, list[Row]] = {}
        for row_id in ids:
            entry = self._rows.pop(row_id, None)
            if entry is not None:
                found.setdefault(entry[0], []).append(entry[1])
        for key, rows in found.items():
            self._drop(key, rows)

    def take(self, key: KeyT, rows: Sequence[Row]) -> None:
        """Removes rows that wait under a key."""
        for row in rows:
            del self._rows[row.id]
        self._drop(key, rows)

    def _drop(self, key: KeyT, rows: Sequence[Row]) -> None:
        self._steps -= sum([row.length for row in rows])
        queue = self._queues[key]
        if len(rows) == len(queue):
            del self._queues[key]
        else:
            queue.remove(rows)

    def expired(self, now: float) -> Mapping[KeyT, Sequence[int]]:
        """The rows whose deadline has passed, by key."""
        return {
            key: [row.id for row in expired] for key, queue in self._queues.items() if (expired := queue.expired(now))
        }

    def ids(self, key: KeyT) -> Sequence[int]:
        """The rows that wait under a key, most urgent first."""
        return [row.id for row in self._queues.get(key, ())]

    def waiting(self) -> Collection[KeyT]:
        """The keys under which rows wait."""
        return self._queues.keys()

    def queue(self, key: KeyT) -> Queue | None:
        """The rows under a key, None if there are none."""
        return self._queues.get(key)


def _with_length(row: Row) -> tuple[int, float, int, Row]:
    return row.length, row.due, row.id, row


def _merge(order: list[EntryT], entries: list[EntryT]) -> None:
    """Adds entries to an order."""
    entries.sort()
    if not order or not entries or order[-1] < entries[0]:
        order += entries
    elif len(entries) * _SIEVED < len(order):
        for entry in entries:
            insort(order, entry)
    else:
        # Sorting finds the two runs, and merges them.
        order += entries
        order.sort()


def _without(order: list[EntryT], entries: list[EntryT], id_at: int) -> list[EntryT]:
    """The order, which it uses up, without some of its entries. id_at: where in an entry the id is."""
    if order[: len(entries)] == entries:
        del order[: len(entries)]
        return order
    if len(entries) * _SIEVED < len(order):
        for entry in entries:
            del order[bisect_left(order, entry)]
        return order
    gone = {entry[id_at] for entry in entries}
    return [entry for entry in order if entry[id_at] not in gone]
