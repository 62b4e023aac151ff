"""What the engine's thread does: take commands in, choose what runs next, run it, send the answers out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import structlog

from conveyor.domain import ModelKey
from conveyor.engine.batches import answer, assemble
from conveyor.engine.batching.backlog import Backlog, BacklogLimits, Row
from conveyor.engine.batching.budget import StepBudget
from conveyor.engine.batching.costs import CostTable
from conveyor.engine.batching.fairness import FairShare, due_time
from conveyor.engine.batching.lane import Lane, LaneRow, Scan
from conveyor.engine.batching.policy import BatchLimits, Plan, chunk_steps, form_batch, longest_whole, plan_batch
from conveyor.engine.batching.shapes import bucket
from conveyor.engine.executors.port import Executor, OutOfDeviceMemory
from conveyor.engine.warmup import measure_costs
from conveyor.errors import DeadlineExceeded, Internal, NotFound, PackageError, Problem, QueueFull, Unavailable
from conveyor.wire.messages import FailureBlock, Reply, RowBlock
from conveyor.wire.port import CostReport, EngineStats

__all__ = ["EngineLoop"]

_log = structlog.get_logger(__name__)

ScanT = TypeVar("ScanT", bound=Scan)


class _Line(NamedTuple):
    """Where a row waits: its model, and whether it is so long that it is run in chunks."""

    model: ModelKey
    in_chunks: bool


@dataclass(slots=True)
class _Served(Generic[ScanT]):
    """A model that is loaded.

    longest_whole: rows longer than this are run in chunks.
    lane_owed_s: device time that the rows in chunks have coming while others run.
    """

    costs: CostTable
    longest_whole: int
    lane: Lane[ScanT] = field(default_factory=Lane)
    lane_owed_s: float = 0.0


class EngineLoop(Generic[ScanT]):
    """An engine without its thread: every method is called from one thread.

    Args:
        reply: Takes each answer; must not block.
        clock: Monotonic seconds, read around each execution.
    """

    def __init__(
        self,
        executor: Executor[ScanT],
        backlog_limits: BacklogLimits,
        limits: BatchLimits,
        reply: Callable[[Reply], None],
        clock: Callable[[], float],
    ) -> None:
        self._executor = executor
        self._backlog: Backlog[_Line] = Backlog(backlog_limits)
        self._limits = limits
        self._budget = StepBudget(limits.padded_steps)
        self._reply = reply
        self._clock = clock
        self._models: dict[ModelKey, _Served[ScanT]] = {}
        self._share: FairShare[ModelKey] = FairShare()
        # Rows that are in no queue while they are worked on, and not yet answered.
        self._running: dict[int, ModelKey] = {}

    @property
    def idle(self) -> bool:
        """Whether nothing waits or is under way."""
        return len(self._backlog) == 0 and not any(served.lane for served in self._models.values())

    def step(self) -> None:
        """Gives one model the device for one execution: a batch, or a chunk of its long rows."""
        self._expire(self._clock())
        waiting = {line.model for line in self._backlog.waiting()}
        waiting |= {model for model, served in self._models.items() if served.lane}
        if not waiting:
            return
        model = self._share.next(sorted(waiting))
        served = self._models[model]
        has_lane = self._fill_lane(model, served)
        has_batch = self._backlog.queue(_Line(model, False)) is not None
        started = self._clock()
        if has_lane and (served.lane_owed_s > 0 or not has_batch):
            self._advance_lane(model, served)
            served.lane_owed_s = served.lane_owed_s - (self._clock() - started) if has_batch else 0.0
        elif has_batch:
            self._run_batch(model, served)
            if has_lane:
                share = self._limits.lane_share
                served.lane_owed_s += (self._clock() - started) * share / (1 - share)
        self._share.charge(model, self._clock() - started)

    def submit(self, block: RowBlock) -> None:
        """Queues the rows of a block; what can't be queued is answered at once."""
        served = self._models.get(block.model)
        if served is None:
            self._fail(block.model, block.ids.tolist(), NotFound, f"model {block.model.name!r} is not loaded")
            return
        refused: list[int] = []
        for line, row in self._rows(block, served):
            refused += self._backlog.add(line, [row])
        self._fail(block.model, refused, QueueFull, "the queue is full; try again later")

    def _rows(self, block: RowBlock, served: _Served[ScanT]) -> list[tuple[_Line, Row]]:
        now = self._clock()
        whole, chunks = _Line(block.model, False), _Line(block.model, True)
        row_step_s = served.costs.row_step_s
        ahead_s: dict[int, float] = {}
        found = []
        end = 0
        columns = (block.ids, block.deadlines, block.priorities, block.requests, block.lengths)
        for row_id, deadline, priority, request, length in zip(*(c.tolist() for c in columns), strict=True):
            start, end = end, end + length
            before_s = ahead_s.get(request, 0.0)
            ahead_s[request] = before_s + row_step_s * length
            due = due_time(now, deadline, priority, before_s)
            # A view would keep the whole block in memory for as long as its last row waits.
            inputs = block.inputs[start:end].copy() if len(block.ids) > 1 else block.inputs
            row = Row(row_id, due, deadline, now, inputs)
            found.append((chunks if length > served.longest_whole else whole, row))
        return found

    def cancel(self, ids: Collection[int]) -> None:
        """Drops rows nobody waits for."""
        self._backlog.remove(ids)
        for served in self._models.values():
            served.lane.remove(ids)

    def load(self, key: ModelKey, directory: Path) -> None:
        """Puts a package on the device and measures what it costs, which warms it too.

        Raises:
            PackageError: Its weights do not fit its description, or it cannot be run here.
        """
        loaded = False
        try:
            self._executor.load(key, directory)
            loaded = True
            costs = measure_costs(self._executor, key, self._clock)
        except PackageError:
            raise
        except Exception as error:
            if loaded:
                self._executor.unload(key)
            _log.error("a package cannot be run", model=key.name, version=key.version, exc_info=error)
            problem = Problem("weights.safetensors", "", f"cannot be run on this device: {error}")
            raise PackageError([problem]) from error
        self._models[key] = _Served(costs, longest_whole(costs, self._limits.slice_s))

    def unload(self, key: ModelKey) -> None:
        """Forgets a model; its rows that wait or are under way fail."""
        ids = self._ids(key)
        self.cancel(ids)
        del self._models[key]
        self._share.forget(key)
        self._fail(key, ids, Unavailable, f"model {key.name!r} version {key.version} was unloaded")
        self._executor.unload(key)

    def fail_all(self, message: str) -> None:
        """Fails every row that runs or waits, for an engine that can't go on."""
        for model in self._models:
            under_way = [row_id for row_id, running in self._running.items() if running == model]
            ids = list(dict.fromkeys([*under_way, *self._ids(model)]))
            self.cancel(ids)
            self._fail(model, ids, Internal, message)

    def stats(self) -> EngineStats:
        """The engine as of now."""
        return EngineStats(
            device=self._executor.device,
            queued_rows={model: len(self._ids(model)) for model in self._models},
            device_memory_bytes=self._executor.memory_bytes(),
            costs={
                model: CostReport(
                    served.costs.rows, served.costs.steps, served.costs.seconds(), served.costs.row_step_s
                )
                for model, served in self._models.items()
            },
        )

    def _ids(self, model: ModelKey) -> list[int]:
        begun = [begun.row.id for begun in self._models[model].lane]
        return [*begun, *self._backlog.ids(_Line(model, True)), *self._backlog.ids(_Line(model, False))]

    def _expire(self, now: float) -> None:
        expired = [(line.model, ids) for line, ids in self._backlog.expired(now).items()]
        expired += [(model, served.lane.expired(now)) for model, served in self._models.items()]
        for model, ids in expired:
            self.cancel(ids)
            self._fail(model, ids, DeadlineExceeded, "the deadline passed while the request waited")

    # Batches

    def _run_batch(self, model: ModelKey, served: _Served[ScanT]) -> None:
        queue = self._backlog.queue(_Line(model, False))
        assert queue is not None
        now = self._clock()
        rows = form_batch(queue, self._limits, self._budget.steps, served.costs, now)
        self._backlog.remove([row.id for row in rows])
        self._run_rows(model, rows)
        plan = plan_batch(rows, served.costs)
        end = now + plan.seconds
        in_time = [row for row in rows if row.deadline >= end]
        self._fail_late(model, served, [row for row in rows if row.deadline < end])
        if in_time:
            self._run(model, served, plan if len(in_time) == len(rows) else plan_batch(in_time, served.costs))

    def _is_late(self, row: Row, served: _Served[ScanT], now: float) -> bool:
        """Whether a row could not be in time even if it ran alone, now."""
        return row.deadline < now + served.costs.estimate_s(bucket(1), row.length)

    def _fail_late(self, model: ModelKey, served: _Served[ScanT], rows: Sequence[Row]) -> None:
        if rows:
            served.costs.relax()
            message = "the answer would have come after the deadline"
            self._fail(model, [row.id for row in rows], DeadlineExceeded, message)

    def _run(self, model: ModelKey, served: _Served[ScanT], plan: Plan) -> None:
        """Runs a batch; if that fails, each half by itself, down to the row at fault."""
        rows = plan.rows
        started = self._clock()
        try:
            batch = assemble(plan)
            result = self._executor.run(model, batch)
            compute_s = self._clock() - started
            lengths = batch.lengths[: len(rows)]
            useful = int(lengths.sum())
            computed = sum(stair.rows * stair.steps for stair in batch.stairs)
            queue_s = started - np.array([row.arrival for row in rows])
            replies = answer(model, rows, lengths, result, queue_s, compute_s, computed - useful, in_chunks=False)
        except Exception as error:
            if isinstance(error, OutOfDeviceMemory):
                self._budget.halve(sum(stair.rows * stair.steps for stair in plan.stairs))
            if len(rows) == 1:
                self._report_fault(model, rows, error)
                return
            replies = []
        if not replies:
            # Out of the handler: the error would keep what the failed attempt had on the device.
            half = len(rows) // 2
            self._run(model, served, plan_batch(rows[:half], served.costs))
            self._run(model, served, plan_batch(rows[half:], served.costs))
            return
        self._budget.grow()
        served.costs.observe(plan.seconds, compute_s)
        for reply in replies:
            self._send(reply)

    def _report_fault(self, model: ModelKey, rows: Sequence[Row], error: Exception) -> None:
        """Fails rows for whatever an executor raised; the engine goes on."""
        _log.error("rows failed", model=model.name, version=model.version, rows=len(rows), exc_info=error)
        self._fail(model, [row.id for row in rows], Internal, "the model failed on this input")

    # Rows in chunks

    def _fill_lane(self, model: ModelKey, served: _Served[ScanT]) -> bool:
        """Begins long rows while there is room; returns whether any is under way."""
        while len(served.lane) < self._limits.lane_rows:
            queue = self._backlog.queue(_Line(model, True))
            if queue is None:
                break
            row = queue.most_urgent()
            steps = sum(begun.row.length for begun in served.lane)
            if served.lane and steps + row.length > self._limits.lane_steps:
                break
            self._backlog.remove([row.id])
            self._run_rows(model, [row])
            if self._is_late(row, served, self._clock()):
                self._fail_late(model, served, [row])
                continue
            try:
                scan = self._executor.begin(model, row.inputs)
            except Exception as error:
                self._report_fault(model, [row], error)
            else:
                served.lane.begin(LaneRow(row, scan, self._clock()))
                self._running.clear()
        return len(served.lane) > 0

    def _advance_lane(self, model: ModelKey, served: _Served[ScanT]) -> None:
        phase, group = served.lane.group()
        self._run_rows(model, [begun.row for begun in group])
        for begun in self._advance(model, served, phase, group):
            if not begun.scan.phases:
                served.lane.remove([begun.row.id])
                self._finish(model, begun)
        self._running.clear()

    def _advance(
        self, model: ModelKey, served: _Served[ScanT], phase: int, group: Sequence[LaneRow[ScanT]]
    ) -> Sequence[LaneRow[ScanT]]:
        """Runs the next chunk; rows that fail leave the lane. Returns the others."""
        started = self._clock()
        num_phases = group[0].scan.num_phases
        rows = bucket(len(group))
        remaining = [begun.scan.remaining_steps(phase) for begun in group]
        steps = chunk_steps(rows, num_phases, max(remaining), served.costs, self._limits.slice_s)
        try:
            self._executor.advance(model, [begun.scan for begun in group], phase, steps, rows)
        except Exception as error:
            if len(group) > 1:
                return [well for begun in group for well in self._advance(model, served, phase, [begun])]
            served.lane.remove([group[0].row.id])
            self._report_fault(model, [group[0].row], error)
            return []
        seconds = self._clock() - started
        useful = sum(min(steps, left) for left in remaining)
        for begun in group:
            begun.compute_s += seconds / len(group)
            begun.padding += (rows * steps - useful) / num_phases / len(group)
        return group

    def _finish(self, model: ModelKey, begun: LaneRow[ScanT]) -> None:
        started = self._clock()
        lengths = np.array([begun.row.length], dtype=np.int32)
        queue_s = np.array([begun.started - begun.row.arrival])
        try:
            result = self._executor.finish(model, begun.scan)
            compute_s = begun.compute_s + self._clock() - started
            replies = answer(
                model, [begun.row], lengths, result, queue_s, compute_s, round(begun.padding), in_chunks=True
            )
        except Exception as error:
            self._report_fault(model, [begun.row], error)
            return
        for reply in replies:
            self._send(reply)

    def _fail(self, model: ModelKey, ids: Sequence[int], error: type[Exception], message: str) -> None:
        if ids:
            self._send(FailureBlock(model, ids, error.__name__, message))

    def _run_rows(self, model: ModelKey, rows: Sequence[Row]) -> None:
        self._running = {row.id: model for row in rows}

    def _send(self, reply: Reply) -> None:
        """The one way out: what was answered is no longer under way."""
        for row_id in reply.ids if isinstance(reply, FailureBlock) else reply.ids.tolist():
            self._running.pop(row_id, None)
        self._reply(reply)
