"""Long rows on the device: begun, run on a chunk at a time, and finished, in as much memory as there is."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from conveyor.engine.batches import answer
from conveyor.engine.batching.backlog import Backlog, Row
from conveyor.engine.batching.budget import StepBudget
from conveyor.engine.batching.lane import Lane, LaneRow, Scan
from conveyor.engine.batching.policy import BatchLimits, chunk_steps
from conveyor.engine.batching.shapes import MOST_STEPS, STEP_BUCKETS, bucket, computed_rows
from conveyor.engine.executors.port import Executor, OutOfDeviceMemory
from conveyor.engine.outbox import Outbox
from conveyor.engine.served import Line, Served

__all__ = ["ChunkRunner"]

ScanT = TypeVar("ScanT", bound=Scan)

_EMPTY: Lane[Any] = Lane()


class ChunkRunner(Generic[ScanT]):
    """Runs long rows. Same thread as the engine.

    When memory runs out, chunks become shorter first, then hold fewer rows; where even one step of one row finds no
    room, the least urgent of the other rows goes back to its queue, to begin again later. A row fails for want of
    memory only if it can't go on by a single step although no other is under way.
    """

    def __init__(
        self,
        executor: Executor[ScanT],
        backlog: Backlog[Line],
        limits: BatchLimits,
        outbox: Outbox,
        clock: Callable[[], float],
    ) -> None:
        self._executor = executor
        self._backlog = backlog
        self._limits = limits
        self._outbox = outbox
        self._clock = clock
        # Rows under way by where they waited, no lane empty.
        self._lanes: dict[Line, Lane[ScanT]] = {}
        # Rows × steps of a chunk.
        self._budget = StepBudget(bucket(limits.lane_rows) * MOST_STEPS)
        # Rows of all models that memory has room for: found by running out of it, one more after each row that ends.
        self._most_rows = math.inf

    @property
    def lines(self) -> Collection[Line]:
        """Where the rows that are under way have waited."""
        return self._lanes.keys()

    @property
    def has_room(self) -> bool:
        """Whether one more row may begin, as far as memory goes."""
        return self._most_rows == math.inf or self._rows_under_way() < max(self._most_rows, 1)

    def ids(self, line: Line) -> Sequence[int]:
        """The rows from a line that are under way."""
        return [begun.row.id for begun in self._lanes.get(line, _EMPTY)]

    def cancel(self, ids: Collection[int]) -> None:
        """Drops rows; ids that are not under way are ignored."""
        for line in list(self._lanes):
            self._remove(line, ids)

    def expired(self, now: float) -> Mapping[Line, Sequence[int]]:
        """The rows under way whose deadline has passed, by where they waited."""
        return {line: ids for line, lane in self._lanes.items() if (ids := lane.expired(now))}

    def fill(self, served: Served) -> bool:
        """Begins long rows of a model while there is room; returns whether any is under way."""
        lane = self._lanes.get(served.chunks, _EMPTY)
        while (queue := self._backlog.queue(served.chunks)) is not None:
            row = queue.most_urgent()
            if len(lane) >= self._limits.lane_rows or not self.has_room:
                break
            if lane and sum(begun.row.length for begun in lane) + row.length > self._limits.lane_steps:
                break
            self._backlog.remove([row.id])
            self._outbox.work_on(served.model, [row.id])
            if served.is_late(row, self._clock()):
                served.fail_late([row], self._outbox)
            else:
                self._begin(served, row)
                lane = self._lanes.get(served.chunks, _EMPTY)
            self._outbox.put_down()
        return len(lane) > 0

    def advance(self, served: Served) -> None:
        """Runs the next chunk of a model that has rows under way, and answers those that are done."""
        lane = self._lanes[served.chunks]
        done = lane.done()
        if not done:
            phase, group = lane.group()
            self._outbox.work_on(served.model, [begun.row.id for begun in group])
            self._run(served, phase, group)
            done = lane.done()
        for begun in done:
            # One before it may have taken its room.
            if begun in lane:
                self._outbox.work_on(served.model, [begun.row.id])
                self._finish(served, begun)
        self._outbox.put_down()

    def _begin(self, served: Served, row: Row) -> None:
        try:
            scan = self._executor.begin(served.model, row.inputs)
        except Exception as error:
            if isinstance(error, OutOfDeviceMemory) and self._lanes:
                self._most_rows = self._rows_under_way()
                self._backlog.put_back(served.chunks, row)
            else:
                self._outbox.report_fault(served.model, [row.id], error)
        else:
            self._lanes.setdefault(served.chunks, Lane()).begin(LaneRow(row, scan, self._clock()))

    def _run(self, served: Served, phase: int, group: Sequence[LaneRow[ScanT]]) -> None:
        """One chunk of the most urgent rows of a group, as many as there is memory for; rows that fail leave the
        lane."""
        while len(group) > 1 and computed_rows(len(group), served.costs) * STEP_BUCKETS[0] > self._budget.steps:
            group = group[:-1]
        num_phases = group[0].scan.num_phases
        rows = computed_rows(len(group), served.costs)
        remaining = [begun.scan.remaining_steps(phase) for begun in group]
        fitting = max(self._budget.steps // rows, STEP_BUCKETS[0])
        steps = chunk_steps(rows, num_phases, max(remaining), fitting, served.costs, self._limits.slice_s)
        started = self._clock()
        try:
            self._executor.advance(served.model, [begun.scan for begun in group], phase, steps, rows)
        except OutOfDeviceMemory as error:
            # The next turn tries again from wherever each row stands then.
            if len(group) > 1 or steps > STEP_BUCKETS[0]:
                self._budget.halve(rows * steps)
            elif not self._make_room(group[0]):
                self._leave_failed(served, group[0], error)
            return
        except Exception as error:
            if len(group) == 1:
                self._leave_failed(served, group[0], error)
                return
        else:
            self._budget.grow()
            seconds = self._clock() - started
            useful = sum(min(steps, left) for left in remaining)
            computed = rows * (min(steps, max(remaining)) if served.costs.ragged else steps)
            for begun in group:
                begun.compute_s += seconds / len(group)
                begun.padding += (computed - useful) / num_phases / len(group)
            return
        # Out of the handler: the error would keep what the failed attempt had on the device.
        for begun in group:
            # One before it may have taken its room, and the failed attempt may have brought it to its end.
            if begun in self._lanes.get(served.chunks, _EMPTY) and phase in begun.scan.phases:
                self._run(served, phase, [begun])

    def _finish(self, served: Served, begun: LaneRow[ScanT]) -> None:
        started = self._clock()
        lengths = np.array([begun.row.length], dtype=np.int32)
        queue_s = np.array([begun.started - begun.row.arrival])
        try:
            result = self._executor.finish(served.model, begun.scan)
            compute_s = begun.compute_s + self._clock() - started
            padding = round(begun.padding)
            replies = answer(served.model, [begun.row], lengths, result, queue_s, compute_s, padding, in_chunks=True)
        except Exception as error:
            if not (isinstance(error, OutOfDeviceMemory) and self._make_room(begun)):
                self._leave_failed(served, begun, error)
            return
        self._remove(served.chunks, [begun.row.id])
        self._most_rows += 1
        for reply in replies:
            self._outbox.send(reply)

    def _leave_failed(self, served: Served, begun: LaneRow[ScanT], error: Exception) -> None:
        self._remove(served.chunks, [begun.row.id])
        self._outbox.report_fault(served.model, [begun.row.id], error)

    def _make_room(self, keep: LaneRow[ScanT]) -> bool:
        """Puts the least urgent row but one back into its queue; returns whether there was any."""
        others = [(line, begun) for line, lane in self._lanes.items() for begun in lane if begun is not keep]
        if not others:
            return False
        line, begun = max(others, key=lambda other: (other[1].row.due, other[1].row.id))
        self._remove(line, [begun.row.id])
        self._backlog.put_back(line, begun.row)
        self._most_rows = self._rows_under_way()
        return True

    def _remove(self, line: Line, ids: Collection[int]) -> None:
        lane = self._lanes[line]
        lane.remove(ids)
        if not lane:
            del self._lanes[line]

    def _rows_under_way(self) -> int:
        return sum(map(len, self._lanes.values()))
