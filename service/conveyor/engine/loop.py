"""What the engine's thread does: take commands in, choose what runs next, run it, send the answers out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import accumulate, repeat
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import structlog

from conveyor.domain import ModelKey
from conveyor.engine.batches import answer, assemble
from conveyor.engine.batching.backlog import Backlog, BacklogLimits, Row
from conveyor.engine.batching.budget import StepBudget
from conveyor.engine.batching.costs import CostTable
from conveyor.engine.batching.fairness import FairShare, due_time
from conveyor.engine.batching.lane import Scan
from conveyor.engine.batching.policy import BatchLimits, Plan, form_batch, longest_whole, plan_batch
from conveyor.engine.batching.shapes import computed_steps
from conveyor.engine.chunks import ChunkRunner
from conveyor.engine.executors.port import Executor, OutOfDeviceMemory
from conveyor.engine.outbox import Outbox
from conveyor.engine.served import Line, Served
from conveyor.engine.sessions.options import IN_MEMORY, SessionOptions
from conveyor.engine.sessions.runner import ModelSessions, SessionRunner
from conveyor.engine.warmup import measure_costs
from conveyor.errors import DeadlineExceeded, Internal, NotFound, PackageError, Problem, QueueFull, Unavailable
from conveyor.wire.messages import RowBlock
from conveyor.wire.port import CostReport, EngineStats, Reply, Work
from conveyor.wire.sessions import SessionBlock, SessionCall, SessionState

__all__ = ["EngineLoop", "Measure"]

_log = structlog.get_logger(__name__)

ScanT = TypeVar("ScanT", bound=Scan)

# What each row that waits may keep of others that have run: 64 MiB for the 8 192 that may wait by default.
_SMALL_BLOCK_BYTES = 8192

# How a model's cost table comes about when it is loaded: from the executor, the model, and a clock.
Measure = Callable[[Executor[Any], ModelKey, Callable[[], float]], CostTable]


class EngineLoop(Generic[ScanT]):
    """An engine without its thread: every method is called from one thread.

    Args:
        reply: Takes each answer; must not block.
        clock: Monotonic seconds, read around each execution.
        measure: Finds out what a model costs.
        sessions: What is told about streaming sessions.

    Raises:
        OSError: The state directory of sessions can't be used.
    """

    def __init__(
        self,
        executor: Executor[ScanT],
        backlog_limits: BacklogLimits,
        limits: BatchLimits,
        reply: Callable[[Reply], None],
        clock: Callable[[], float],
        measure: Measure = measure_costs,
        sessions: SessionOptions = IN_MEMORY,
    ) -> None:
        self._executor = executor
        self._backlog: Backlog[Line] = Backlog(backlog_limits)
        self._limits = limits
        self._budget = StepBudget(limits.padded_steps)
        self._outbox = Outbox(reply)
        self._clock = clock
        self._measure = measure
        self._models: dict[ModelKey, Served] = {}
        # Rows of a model and its sessions take turns as two models do.
        self._share: FairShare[ModelKey | ModelSessions] = FairShare()
        self._sessions = SessionRunner(executor, sessions, self._outbox, clock)
        self._chunks = ChunkRunner(executor, self._backlog, limits, self._outbox, clock)

    @property
    def idle(self) -> bool:
        """Whether nothing waits or is under way."""
        return len(self._backlog) == 0 and not self._chunks.lines and not self._sessions.waiting

    @property
    def wakes_at(self) -> float:
        """When `step` has something to do although nothing waits; monotonic seconds."""
        return self._sessions.wakes_at

    def step(self) -> None:
        """Gives one model the device for one execution: a batch, or a chunk of its long rows, or of its sessions."""
        self._expire(self._clock())
        self._sessions.keep_house()
        waiting = self._waiting()
        if not waiting:
            return
        turn = self._share.next(waiting)
        started = self._clock()
        if isinstance(turn, ModelSessions):
            turn.turns.run()
        else:
            self._step_rows(self._models[turn])
        self._share.charge(turn, self._clock() - started)

    def _step_rows(self, served: Served) -> None:
        has_lane = self._chunks.fill(served)
        has_batch = self._backlog.queue(served.whole) is not None
        started = self._clock()
        if has_lane and (served.lane_owed_s > 0 or not has_batch):
            self._chunks.advance(served)
            served.lane_owed_s = served.lane_owed_s - (self._clock() - started) if has_batch else 0.0
        elif has_batch:
            self._run_batch(served)
            if has_lane:
                share = self._limits.lane_share
                served.lane_owed_s += (self._clock() - started) * share / (1 - share)

    def _waiting(self) -> Collection[ModelKey | ModelSessions]:
        """The models, and models' sessions, that can use the device now, each once."""
        may_begin = self._chunks.has_room
        found: list[ModelKey | ModelSessions] = [*self._sessions.waiting]
        found += [line.model for line in self._backlog.waiting() if may_begin or not line.in_chunks]
        found += [line.model for line in self._chunks.lines]
        return found if len(found) < 2 else dict.fromkeys(found)

    def submit(self, block: Work) -> None:
        """Queues the rows of a block; what can't be queued is answered at once."""
        if isinstance(block, SessionBlock):
            self._sessions.submit(block)
        else:
            self._submit_rows(block)

    def session(self, call: SessionCall) -> SessionState:
        """Does what a call asks with a session.

        Raises:
            ConveyorError: It can't be done.
        """
        return self._sessions.call(call)

    def _submit_rows(self, block: RowBlock) -> None:
        served = self._models.get(block.model)
        if served is None:
            self._outbox.fail(block.model, block.ids, NotFound, f"model {block.model.name!r} is not loaded")
            return
        rows = self._rows(block, served.costs.row_step_s)
        if max(block.lengths, default=0) <= served.longest_whole:
            refused = self._backlog.add(served.whole, rows)
        else:
            refused = []
            for row in rows:
                line = served.chunks if row.length > served.longest_whole else served.whole
                refused += self._backlog.add(line, [row])
        self._outbox.fail(block.model, refused, QueueFull, "the queue is full; try again later")

    def _rows(self, block: RowBlock, row_step_s: float) -> list[Row]:
        now = self._clock()
        inputs, lengths, requests = block.inputs, block.lengths, block.requests
        ends = list(accumulate(lengths))
        parts = [inputs[end - length : end] for length, end in zip(lengths, ends, strict=True)]
        if len(lengths) > 1 and inputs.nbytes > _SMALL_BLOCK_BYTES:
            # A view keeps the whole block in memory for as long as its last row waits.
            parts = [part.copy() for part in parts]
        num_requests = len(set(requests))
        if num_requests == len(requests):
            ahead_s: Iterable[float] = repeat(0.0, len(requests))
        elif num_requests == 1:
            ahead_s = [row_step_s * (end - length) for length, end in zip(lengths, ends, strict=True)]
        else:
            ahead_s = _ahead_s(requests, lengths, row_step_s)
        due = map(due_time, repeat(now), block.deadlines, block.priorities, ahead_s)
        columns = due, block.ids, lengths, block.deadlines, repeat(now, len(lengths)), parts
        # As `Row._make`, which is not compiled.
        return list(map(tuple.__new__, repeat(Row), zip(*columns, strict=True)))

    def cancel(self, ids: Collection[int]) -> None:
        """Drops rows nobody waits for."""
        self._backlog.remove(ids)
        self._chunks.cancel(ids)
        self._sessions.cancel(ids)

    def load(self, key: ModelKey, directory: Path) -> None:
        """Puts a package on the device and measures what it costs, which warms it too.

        Raises:
            PackageError: Its weights do not fit its description, or it cannot be run here.
        """
        loaded = False
        try:
            self._executor.load(key, directory)
            loaded = True
            costs = self._measure(self._executor, key, self._clock)
        except PackageError:
            raise
        except Exception as error:
            if loaded:
                self._executor.unload(key)
            _log.error("a package cannot be run", model=key.name, version=key.version, exc_info=error)
            problem = Problem("weights.safetensors", "", f"cannot be run on this device: {error}")
            raise PackageError([problem]) from error
        self._models[key] = Served(key, costs, longest_whole(costs, self._limits.slice_s))
        self._sessions.load(key, directory, costs)

    def unload(self, key: ModelKey) -> None:
        """Forgets a model; its rows, and what is asked of its sessions, fail if they wait or are under way."""
        turn = self._sessions.unload(key)
        if turn is not None:
            self._share.forget(turn)
        ids = self._ids(key)
        self.cancel(ids)
        del self._models[key]
        self._share.forget(key)
        self._outbox.fail(key, ids, Unavailable, f"model {key.name!r} version {key.version} was unloaded")
        self._executor.unload(key)

    def fail_all(self, message: str) -> None:
        """Fails every row that runs or waits, for an engine that can't go on."""
        for model in self._models:
            ids = list(dict.fromkeys([*self._outbox.under_way(model), *self._ids(model)]))
            self.cancel(ids)
            self._outbox.fail(model, ids, Internal, message)
        self._sessions.fail_all(message)

    def close(self) -> None:
        """Writes sessions to their state directory, if there is one. Nothing may wait, and nothing is asked later."""
        self._sessions.close()

    def stats(self) -> EngineStats:
        """The engine as of now."""
        return EngineStats(
            device=self._executor.device,
            queued_rows={model: len(self._ids(model)) + len(self._sessions.ids(model)) for model in self._models},
            device_memory_bytes=self._executor.memory_bytes(),
            costs={
                model: CostReport(
                    served.costs.rows, served.costs.steps, served.costs.seconds(), served.costs.row_step_s
                )
                for model, served in self._models.items()
            },
            plans={model: self._executor.plan(model) for model in self._models},
            sessions=self._sessions.counts(),
        )

    def _ids(self, model: ModelKey) -> list[int]:
        served = self._models[model]
        queues = served.chunks, served.whole
        return [*self._chunks.ids(served.chunks), *(row_id for line in queues for row_id in self._backlog.ids(line))]

    def _expire(self, now: float) -> None:
        message = "the deadline passed while the request waited"
        for expired in (self._backlog.expired(now), self._chunks.expired(now)):
            for line, ids in expired.items():
                self.cancel(ids)
                self._outbox.fail(line.model, ids, DeadlineExceeded, message)

    def _run_batch(self, served: Served) -> None:
        queue = self._backlog.queue(served.whole)
        assert queue is not None
        now = self._clock()
        rows = form_batch(queue, self._limits, self._budget.steps, served.costs, now)
        self._backlog.take(served.whole, rows)
        self._outbox.work_on(served.model, [row.id for row in rows])
        plan = plan_batch(rows, served.costs)
        end = now + plan.seconds
        if min([row.deadline for row in rows]) < end:
            served.fail_late([row for row in rows if row.deadline < end], self._outbox)
            rows = [row for row in rows if row.deadline >= end]
            plan = plan_batch(rows, served.costs)
        if rows:
            self._run(served, plan)
        self._outbox.put_down()

    def _run(self, served: Served, plan: Plan) -> None:
        """Runs a batch; if that fails, each half by itself, down to the row at fault."""
        model, rows = served.model, plan.rows
        started = self._clock()
        replies: Sequence[Reply] = ()
        try:
            batch = assemble(plan)
            result = self._executor.run(model, batch)
            compute_s = self._clock() - started
            padding = 0 if served.costs.ragged else computed_steps(batch.stairs) - sum(plan.lengths)
            queue_s = started - np.array([row.arrival for row in rows])
            lengths = batch.lengths[: len(rows)]
            replies = answer(model, rows, lengths, result, queue_s, compute_s, padding, in_chunks=False)
        except Exception as error:
            no_memory = isinstance(error, OutOfDeviceMemory)
            if no_memory:
                self._budget.halve(computed_steps(plan.stairs))
            if len(rows) == 1:
                if no_memory and rows[0].length:
                    # In chunks it needs less at a time.
                    self._backlog.put_back(served.chunks, rows[0])
                else:
                    self._outbox.report_fault(model, [row.id for row in rows], error)
                return
        if not replies:
            # Out of the handler: the error would keep what the failed attempt had on the device.
            half = len(rows) // 2
            self._run(served, plan_batch(rows[:half], served.costs))
            self._run(served, plan_batch(rows[half:], served.costs))
            return
        self._budget.grow()
        served.costs.observe(plan.seconds, compute_s)
        for reply in replies:
            self._outbox.send(reply)


def _ahead_s(requests: Sequence[int], lengths: Sequence[int], row_step_s: float) -> Iterator[float]:
    """For each row, the device time of the rows of its request before it."""
    steps: dict[int, int] = {}
    for request, length in zip(requests, lengths, strict=True):
        before = steps.get(request, 0)
        steps[request] = before + length
        yield row_step_s * before
