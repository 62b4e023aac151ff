"""What waits for the device: bounded, ordered by urgency and by length, each row removable at once. Pure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from sortedcontainers import SortedKeyList

from conveyor.wire.messages import Inputs

__all__ = ["Backlog", "BacklogLimits", "Queue", "Row"]

KeyT = TypeVar("KeyT", bound=Hashable)


@dataclass(frozen=True, slots=True)
class BacklogLimits:
    """Bounds over everything that waits: rows bound the bookkeeping, steps the memory."""

    rows: int
    steps: int


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """A row that waits.

    due: monotonic seconds by which it should run; the earliest goes first. Never after the deadline.
    deadline: monotonic seconds after which it must not run.
    arrival: monotonic seconds.
    inputs: int32 or float32 [length, width].
    """

    id: int
    due: float
    deadline: float
    arrival: float
    inputs: Inputs

    @property
    def length(self) -> int:
        """Steps of the row."""
        return len(self.inputs)


class Queue:
    """The rows of one model that wait: by urgency and by length at once. At least one row."""

    def __init__(self) -> None:
        self._by_due: SortedKeyList[Row] = SortedKeyList(key=lambda row: (row.due, row.id))
        self._by_length: SortedKeyList[Row] = SortedKeyList(key=lambda row: (row.length, row.due, row.id))
        self._by_deadline: SortedKeyList[Row] = SortedKeyList(key=lambda row: (row.deadline, row.id))

    def __len__(self) -> int:
        return len(self._by_due)

    def __iter__(self) -> Iterator[Row]:
        return iter(self._by_due)

    def add(self, row: Row) -> None:
        """Adds a row."""
        for order in (self._by_due, self._by_length, self._by_deadline):
            order.add(row)

    def remove(self, row: Row) -> None:
        """Removes a row that is inside."""
        for order in (self._by_due, self._by_length, self._by_deadline):
            order.remove(row)

    def most_urgent(self) -> Row:
        """The row that is due first."""
        row: Row = self._by_due[0]
        return row

    def like(self, row: Row, longest: float = math.inf) -> Iterator[Row]:
        """The rows of up to `longest` steps, `row` itself first, then by how near their length is to its."""
        order = self._by_length
        shorter = order.index(row)
        longer = shorter + 1
        yield row
        while shorter > 0 or longer < len(order):
            below = row.length - order[shorter - 1].length if shorter > 0 else None
            above = order[longer].length - row.length if longer < len(order) else None
            if above is not None and order[longer].length > longest:
                longer, above = len(order), None
                continue
            if above is None or (below is not None and below <= above):
                shorter -= 1
                yield order[shorter]
            else:
                yield order[longer]
                longer += 1

    def expired(self, now: float) -> list[Row]:
        """The rows whose deadline has passed."""
        return list(itertools.takewhile(lambda row: row.deadline <= now, self._by_deadline))


class Backlog(Generic[KeyT]):
    """Rows by key, such as a model; one bound for all of them. Ids are unique over all keys."""

    def __init__(self, limits: BacklogLimits) -> None:
        self._limits = limits
        self._queues: dict[KeyT, Queue] = {}
        self._rows: dict[int, tuple[KeyT, Row]] = {}
        self._steps = 0

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, key: KeyT, rows: Iterable[Row]) -> Sequence[int]:
        """Queues rows; returns the ids of those that found no room. A row that waits alone always fits."""
        refused = []
        for row in rows:
            full = len(self) >= self._limits.rows or self._steps + row.length > self._limits.steps
            if full and self._rows:
                refused.append(row.id)
                continue
            self._queues.setdefault(key, Queue()).add(row)
            self._rows[row.id] = (key, row)
            self._steps += row.length
        return refused

    def remove(self, ids: Collection[int]) -> None:
        """Drops rows; ids that do not wait are ignored."""
        for row_id in ids:
            found = self._rows.pop(row_id, None)
            if found is None:
                continue
            key, row = found
            self._steps -= row.length
            queue = self._queues[key]
            queue.remove(row)
            if not queue:
                del self._queues[key]

    def expired(self, now: float) -> Mapping[KeyT, Sequence[int]]:
        """The rows whose deadline has passed, by key."""
        found = {key: [row.id for row in queue.expired(now)] for key, queue in self._queues.items()}
        return {key: ids for key, ids in found.items() if ids}

    def ids(self, key: KeyT) -> Sequence[int]:
        """The rows that wait under a key, most urgent first."""
        queue = self._queues.get(key)
        return [row.id for row in queue] if queue else []

    def waiting(self) -> Mapping[KeyT, int]:
        """How many rows wait, by key; keys without any are left out."""
        return {key: len(queue) for key, queue in self._queues.items()}

    def queue(self, key: KeyT) -> Queue | None:
        """The rows under a key, None if there are none."""
        return self._queues.get(key)
