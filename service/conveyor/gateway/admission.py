"""What is accepted and not yet answered: bounded, priced, and refused at once where it can't be in time."""

from __future__ import annotations

import asyncio
import math
from dataclasses import KW_ONLY, dataclass
from types import TracebackType

from conveyor.domain import ModelKey
from conveyor.errors import DeadlineExceeded, QueueFull
from conveyor.wire.messages import NORMAL_PRIORITY, PATIENCE_S

__all__ = ["Admission", "Room"]

# Until a model's first request was encoded: every code point or value may be a step.
_STEPS_PER_SIZE = 1.0
_LEARNING_RATE = 0.1
_LONGEST_RETRY_S = 60.0
_WORTH_COUNTING_S = 0.02
# Where more waits than one batch holds, rows like the most urgent one go with it, also those that came later (of ragged
# rows, out of the two batches that are due first): a row waits for up to twice what is due before it.
_OVERTAKEN = 2.0
# Front ends that know nothing of each other, or an interpreter that has no time, make it longer.
_MOST_STRETCH = 8.0
# One promise in a hundred may be broken: the stretch stays where it is when this many are.
_LONGER, _SHORTER = 1.02, 0.9998
# What was promised before the stretch grew says nothing of it as it is now: beyond this it is not blamed.
_LONGER_AT_ONCE = 1.25
# A promise counts if more than half of the time that it leaves was reckoned with.
_CLOSE = 0.5


@dataclass(slots=True, eq=False)
class Room:
    """What a request in flight holds, until the end of its block or until `leave`.

    due: monotonic seconds by which the engine wants to begin serving it.
    by_deadline: whether that is its deadline; if not, the engine spaces its rows by what they cost from there on.
    seconds: device time its steps should take.
    promised: whether its deadline leaves little more than was reckoned with.
    stretch: by how much waits had been longer when it was accepted.
    is_spread: whether a part of it worth counting may be served after what is due later.
    """

    admission: Admission
    due: float
    rows: int
    size: int
    seconds: float
    stretch: float
    _: KW_ONLY
    by_deadline: bool
    promised: bool
    is_spread: bool

    def __enter__(self) -> None:
        """Held from `admit` on."""

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave(fault)

    def leave(self, fault: BaseException | None) -> None:
        """Gives it back, once. fault: why the request was not answered, if it was not."""
        self.admission.give_back(self, in_time=fault is None, late=isinstance(fault, DeadlineExceeded))


class Admission:
    """Counts rows, and their size in code points or values, of the requests in flight. Event loop only.

    Size is counted beside rows because it bounds memory: a row may be one word or a million code points.
    Device time is estimated from the engine's own cost table and from how many steps a code point of each model has
    made so far, so that a refused caller is told when to come back.
    """

    def __init__(self, max_rows: int, max_size: int, batch_rows: int) -> None:
        self._batch_rows = batch_rows
        self._max_rows = max_rows
        self._max_size = max_size
        self._rows = 0
        self._size = 0
        self._rows_elsewhere = 0
        # In the order of their coming, so that sums are the same whenever they are formed.
        self._accepted: dict[Room, None] = {}
        self._seconds = 0.0
        # No request in flight is due later; and how many of them are served in pieces over a time.
        self._latest_due = -math.inf
        self._spread = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._step_s: dict[ModelKey, float] = {}
        self._batch_s: dict[ModelKey, float] = {}
        self._steps_per_size: dict[ModelKey, float] = {}
        # By how much waits have been longer than was reckoned.
        self._stretch = 1.0

    async def wait_idle(self) -> None:
        """Returns once every request that was accepted is answered."""
        await self._idle.wait()

    def set_price(self, model: ModelKey, row_step_s: float) -> None:
        """Tells what a step of a row costs in a full batch, by the engine's table as it stands."""
        self._step_s[model] = row_step_s

    def share_engine(self, rows_elsewhere: int) -> None:
        """Tells how many rows the engine has that are not from here; they are taken to be like ours."""
        self._rows_elsewhere = rows_elsewhere

    def observe(self, model: ModelKey, steps: int, seconds: float) -> None:
        """Tells what an execution took for its useful steps; what is beyond their price comes with every execution.

        It is not put on the steps: small batches would make them dear, dear steps would be refused, and so batches
        would stay small.
        """
        beyond_s = max(seconds - steps * self._step_s.get(model, 0.0), 0.0)
        before_s = self._batch_s.get(model, beyond_s)
        self._batch_s[model] = before_s + _LEARNING_RATE * (beyond_s - before_s)

    def learn(self, model: ModelKey, size: int, steps: int) -> None:
        """Tells how many steps a request of some size made."""
        if size > 0:
            before = self._steps_per_size.get(model, steps / size)
            self._steps_per_size[model] = before + _LEARNING_RATE * (steps / size - before)

    def admit(
        self, model: ModelKey, rows: int, size: int, now: float, deadline: float, priority: int = NORMAL_PRIORITY
    ) -> Room:
        """Room for a request, to be held while it is worked on.

        Args:
            now, deadline: Monotonic seconds.
            priority: One of `wire.messages.PRIORITIES`.

        Raises:
            QueueFull: There is no room now; says when there should be.
            DeadlineExceeded: What is due before it would take until after its deadline.
        """
        if self._rows + rows > self._max_rows:
            raise self._full(f"{self._rows} rows wait, at most {self._max_rows} are accepted")
        if self._size + size > self._max_size:
            raise self._full(f"{self._size} code points and values wait, at most {self._max_size} are accepted")
        seconds = size * self._steps_per_size.get(model, _STEPS_PER_SIZE) * self._step_s.get(model, 0.0)
        # With nothing in flight the engine has the last word: an estimate that let nothing through would never be
        # corrected.
        reckoned_s = self._ahead_s(now, deadline, seconds, rows, self._batch_s.get(model, 0.0)) + seconds
        if self._accepted and now + reckoned_s > deadline:
            raise DeadlineExceeded(
                f"the answer would take up to {reckoned_s:.3f} s, longer than the deadline allows",
                retry_after_s=self.retry_after_s(),
            )
        patient = now + PATIENCE_S[priority]
        by_deadline = deadline <= patient
        room = Room(
            self,
            min(deadline, patient),
            rows,
            size,
            seconds,
            self._stretch,
            by_deadline=by_deadline,
            promised=_CLOSE * (deadline - now) < reckoned_s <= deadline - now,
            is_spread=not by_deadline and seconds > _WORTH_COUNTING_S,
        )
        if not self._accepted:
            self._idle.clear()
        self._accepted[room] = None
        self._rows += rows
        self._size += size
        self._seconds += seconds
        if room.due > self._latest_due:
            self._latest_due = room.due
        self._spread += room.is_spread
        return room

    def give_back(self, room: Room, *, in_time: bool, late: bool) -> None:
        """Frees what was held, once, and learns from how it ended: answered in time, too late, or neither."""
        if room.promised:
            if in_time:
                self._stretch = max(self._stretch * _SHORTER, 1.0)
            elif late:
                longer = min(self._stretch * _LONGER, room.stretch * _LONGER_AT_ONCE, _MOST_STRETCH)
                self._stretch = max(self._stretch, longer)
        del self._accepted[room]
        self._rows -= room.rows
        self._size -= room.size
        self._seconds -= room.seconds
        self._spread -= room.is_spread
        if not self._accepted:
            # Also where rounding has left a trace.
            self._seconds = 0.0
            self._latest_due = -math.inf
            self._idle.set()

    def _ahead_s(self, now: float, deadline: float, seconds: float, rows: int, batch_s: float) -> float:
        """Time until a request of some rows would begin its last batch, behind those that are due before it."""
        if not self._rows:
            return self._wait_s(0, 0.0, rows, batch_s)
        everything_s = self._wait_s(self._rows, self._seconds, rows, batch_s)
        if now + everything_s + seconds <= deadline:
            return everything_s
        if self._latest_due <= deadline and not self._spread:
            # All of it is due before, as it is where callers are equally patient. Under overload most requests get
            # here, and to look at each that is in flight would take longer than to read the request.
            return everything_s
        rows_ahead = seconds_ahead = 0.0
        for request in self._accepted:
            if request.due <= deadline and request.seconds > 0:
                due_s = request.seconds if request.by_deadline else min(request.seconds, deadline - request.due)
                seconds_ahead += due_s
                rows_ahead += request.rows * due_s / request.seconds
        return self._wait_s(int(rows_ahead), seconds_ahead, rows, batch_s)

    def _wait_s(self, rows_ahead: int, seconds_ahead: float, rows: int, batch_s: float) -> float:
        """Time that so many rows ahead take, with those that other front ends have beside them."""
        crowd = 1 + self._rows_elsewhere / self._rows if self._rows else 1.0
        crowded = self._rows + self._rows_elsewhere + rows > self._batch_rows
        stretch = self._stretch * (_OVERTAKEN if crowded else 1.0)
        batches = (int(crowd * rows_ahead) + rows - 1) // self._batch_rows
        return stretch * (crowd * seconds_ahead + batch_s * batches)

    def _full(self, reason: str) -> QueueFull:
        return QueueFull(f"the queue is full: {reason}; try again later", retry_after_s=self.retry_after_s())

    def retry_after_s(self) -> float:
        """When what is in flight should be done: whole seconds, as the header wants them."""
        return min(max(math.ceil(self._seconds), 1.0), _LONGEST_RETRY_S)
