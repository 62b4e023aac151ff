"""What waits for the device: bounded, ordered by urgency and by length, each row removable at once. Pure."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left, insort
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from conveyor.wire.messages import Inputs

__all__ = ["Backlog", "BacklogLimits", "Queue", "Row"]

KeyT = TypeVar("KeyT", bound=Hashable)


@dataclass(frozen=True, slots=True)
class BacklogLimits:
    """Bounds over everything that waits: rows bound the bookkeeping, steps the memory."""

    rows: int
    steps: int


@dataclass(slots=True, eq=False)
class Row:
    """A row that waits. Nothing of it changes.

    due: monotonic seconds by which it should run; the earliest goes first. Never after the deadline.
    deadline: monotonic seconds after which it must not run.
    arrival: monotonic seconds.
    inputs: int32 or float32 [length, width].
    length: steps of the row.
    """

    id: int
    due: float
    deadline: float
    arrival: float
    inputs: Inputs
    length: int = field(init=False)

    def __post_init__(self) -> None:
        self.length = len(self.inputs)


class Queue:
    """The rows of one model that wait: by urgency and by length at once. At least one row.

    Orders are plain lists: up to some ten thousand rows, to move what stands behind a place costs less than a tree
    costs at any size. Ids are unique, so no comparison comes to the rows themselves.
    """

    def __init__(self) -> None:
        self._by_due: list[tuple[float, int, Row]] = []
        self._by_length: list[tuple[int, float, int, Row]] = []
        self._by_deadline: list[tuple[float, int, Row]] = []

    def __len__(self) -> int:
        return len(self._by_due)

    def __iter__(self) -> Iterator[Row]:
        return (entry[-1] for entry in self._by_due)

    def add(self, row: Row) -> None:
        """Adds a row."""
        insort(self._by_due, (row.due, row.id, row))
        insort(self._by_length, (row.length, row.due, row.id, row))
        insort(self._by_deadline, (row.deadline, row.id, row))

    def remove(self, row: Row) -> None:
        """Removes a row that is inside."""
        # An entry stands right behind its own beginning.
        del self._by_due[bisect_left(self._by_due, (row.due, row.id))]
        del self._by_length[self._place(row)]
        del self._by_deadline[bisect_left(self._by_deadline, (row.deadline, row.id))]

    def most_urgent(self) -> Row:
        """The row that is due first."""
        return self._by_due[0][-1]

    def like(self, row: Row, longest: float = math.inf) -> Iterator[Row]:
        """The rows of up to `longest` steps, `row` itself first, then by how near their length is to its."""
        order, length = self._by_length, row.length
        shorter = self._place(row) - 1
        longer = shorter + 2
        last = len(order) if longest == math.inf else bisect_left(order, (longest + 1,))
        yield row
        while shorter >= 0 or longer < last:
            if longer >= last or (shorter >= 0 and length - order[shorter][0] <= order[longer][0] - length):
                yield order[shorter][-1]
                shorter -= 1
            else:
                yield order[longer][-1]
                longer += 1

    @property
    def next_deadline(self) -> float:
        """The earliest deadline; monotonic seconds."""
        return self._by_deadline[0][0]

    def expired(self, now: float) -> list[Row]:
        """The rows whose deadline has passed."""
        return [entry[-1] for entry in itertools.takewhile(lambda entry: entry[0] <= now, self._by_deadline)]

    def _place(self, row: Row) -> int:
        return bisect_left(self._by_length, (row.length, row.due, row.id))


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
            full = len(self._rows) >= self._limits.rows or self._steps + row.length > self._limits.steps
            if full and self._rows:
                refused.append(row.id)
            else:
                self.put_back(key, row)
        return refused

    def put_back(self, key: KeyT, row: Row) -> None:
        """Queues a row that was accepted before, whether there is room or not."""
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = Queue()
        queue.add(row)
        self._rows[row.id] = (key, row)
        self._steps += row.length

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
        return {
            key: [row.id for row in queue.expired(now)]
            for key, queue in self._queues.items()
            if queue.next_deadline <= now
        }

    def ids(self, key: KeyT) -> Sequence[int]:
        """The rows that wait under a key, most urgent first."""
        queue = self._queues.get(key)
        return [row.id for row in queue] if queue else []

    def waiting(self) -> Collection[KeyT]:
        """The keys under which rows wait."""
        return self._queues.keys()

    def queue(self, key: KeyT) -> Queue | None:
        """The rows under a key, None if there are none."""
        return self._queues.get(key)
