"""Rows to the engine and answers back: one block a tick of the event loop, one answer a row."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from conveyor.domain import ModelKey
from conveyor.errors import ConveyorError, QueueFull, error_named
from conveyor.gateway.call import Call
from conveyor.gateway.session_rows import SessionRowsDispatcher
from conveyor.gateway.waiting import Waiting
from conveyor.wire.messages import BatchReport, FailureBlock, ResultBlock, RowBlock, Rows
from conveyor.wire.port import EnginePort, Reply
from conveyor.wire.sessions import SessionResults

__all__ = ["Dispatcher", "RowResult"]

# How long rows wait at most for company while the engine has others of ours, which it could not leave for them: a block
# costs both sides as much as ten rows.
_GATHER_S = 0.001
# A request of so many rows is company enough.
_COMPANY = 32

# When to try again where nothing better is known.
_SOON_S = 1.0

RowResult = Mapping[str, npt.NDArray[np.generic]]

# In the place of an answer that has not come.
_NO_RESULT: RowResult = {}


@dataclass(slots=True, eq=False)
class _Waiter:
    """A request's rows while they are in the engine, or on their way there.

    remaining: how many are not answered.
    """

    first_id: int
    rows: Rows
    results: list[RowResult]
    remaining: int
    done: asyncio.Future[None]
    call: Call


class Dispatcher:
    """Sends rows through an `EnginePort` and hands each caller its own answers. Made and used inside one running event
    loop.

    Args:
        engine: Where rows go; this dispatcher becomes its sink.
        observe: Told what each execution cost.
        clock: Monotonic seconds, as the deadlines of calls.
        room_in_s: Seconds after which there should be room in a queue that is full.

    sessions: where rows of sessions go; their ids are of the same space.
    """

    def __init__(
        self,
        engine: EnginePort,
        observe: Callable[[BatchReport], None],
        clock: Callable[[], float] = time.monotonic,
        room_in_s: Callable[[], float] = lambda: _SOON_S,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._engine = engine
        self._observe = observe
        self._clock = clock
        self._room_in_s = room_in_s
        self._next_id = 0
        self._waiting = Waiting(clock)
        self._waiters: dict[int, _Waiter] = {}
        self._outboxes: dict[ModelKey, list[_Waiter]] = {}
        # While rows are held back.
        self._holding: asyncio.TimerHandle | None = None
        self._flushed = -math.inf
        self.sessions = SessionRowsDispatcher(engine, self._take_ids, clock)
        engine.connect(self._on_reply)

    async def run(self, call: Call, model: ModelKey, rows: Rows) -> Sequence[RowResult]:
        """Computes rows; results come in their order.

        Cancelling the call, or passing its deadline, takes its rows out of the engine's queue.

        Raises:
            DeadlineExceeded: `call.deadline` passed first.
            ConveyorError: The first failure among the rows.
        """
        count = len(rows.lengths)
        if not count:
            return []
        first_id = self._take_ids(count)
        ids = range(first_id, first_id + count)
        results: list[RowResult] = [_NO_RESULT] * count
        done: asyncio.Future[None] = self._loop.create_future()
        waiter = _Waiter(first_id, rows, results, count, done, call)
        self._waiters.update(dict.fromkeys(ids, waiter))
        self._post(model, waiter)
        try:
            await self._waiting.until_answered(done, call.deadline)
        finally:
            waiting = [row_id for row_id in ids if self._waiters.pop(row_id, None)]
            if waiting:
                self._engine.cancel(waiting)
        return results

    def _take_ids(self, count: int) -> int:
        first = self._next_id
        self._next_id += count
        return first

    def _post(self, model: ModelKey, waiter: _Waiter) -> None:
        rows = len(waiter.results)
        if not self._outboxes:
            needs_company = rows < _COMPANY and len(self._waiters) > rows
            held_s = self._flushed + _GATHER_S - self._clock() if needs_company else 0.0
            if held_s > 0.0:
                self._holding = self._loop.call_later(held_s, self._flush)
            else:
                self._loop.call_soon(self._flush)
        elif rows >= _COMPANY:
            self._hold_no_longer()
        self._outboxes.setdefault(model, []).append(waiter)

    def _hold_no_longer(self) -> None:
        """Sends what is held back at the end of this tick."""
        if self._holding is not None:
            self._holding.cancel()
            self._holding = None
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._holding = None
        self._flushed = self._clock()
        outboxes, self._outboxes = self._outboxes, {}
        for model, posted in outboxes.items():
            # A caller may have gone between posting and this tick's end: its rows are nobody's.
            waiters = [waiter for waiter in posted if not waiter.done.done()]
            if waiters:
                self._engine.submit(_block(model, waiters))

    def _on_reply(self, reply: Reply) -> None:
        # The engine may be idle now. Not at once: those that are answered may ask again in this tick.
        self._hold_no_longer()
        if isinstance(reply, ResultBlock):
            self._observe(reply.report)
            self._deliver(reply)
        elif isinstance(reply, SessionResults):
            self._observe(reply.report)
            self.sessions.deliver(reply)
        else:
            self._fail(reply)

    def _deliver(self, block: ResultBlock) -> None:
        """The only loop over the rows of a batch in the front end."""
        ends = np.cumsum(block.lengths).tolist() if block.stepwise else range(1, len(block.ids) + 1)
        start = 0
        compute_s = block.report.compute_s
        for row_id, end, queue_s in zip(block.ids.tolist(), ends, block.report.queue_s.tolist(), strict=True):
            waiter = self._waiters.pop(row_id, None)
            if waiter is not None:
                rows = {name: array[start:end] for name, array in block.arrays.items()}
                waiter.results[row_id - waiter.first_id] = rows
                waiter.remaining -= 1
                call = waiter.call
                if queue_s > call.queue_s:
                    call.queue_s = queue_s
                if compute_s > call.compute_s:
                    call.compute_s = compute_s
                if waiter.remaining == 0 and not waiter.done.done():
                    waiter.done.set_result(None)
            start = end

    def _fail(self, block: FailureBlock) -> None:
        # Rows of sessions may be items of one call, which shows the error once for each: it can be one object.
        error = self._error(block)
        for row_id in block.ids:
            waiter = self._waiters.pop(row_id, None)
            if waiter is None:
                self.sessions.fail(row_id, error)
            elif not waiter.done.done():
                waiter.done.set_exception(self._error(block))

    def _error(self, block: FailureBlock) -> ConveyorError:
        kind = error_named(block.error)
        retry_after_s = None
        if kind.retryable:
            retry_after_s = self._room_in_s() if kind is QueueFull else _SOON_S
        return kind(block.message, retry_after_s=retry_after_s)


def _block(model: ModelKey, waiters: Sequence[_Waiter]) -> RowBlock:
    """The rows of some requests."""
    ids: list[int] = []
    deadlines: list[float] = []
    priorities: list[int] = []
    requests: list[int] = []
    lengths: list[int] = []
    for waiter in waiters:
        count = len(waiter.rows.lengths)
        ids += range(waiter.first_id, waiter.first_id + count)
        deadlines += [waiter.call.deadline] * count
        priorities += [waiter.call.priority] * count
        requests += [waiter.first_id] * count
        lengths += waiter.rows.lengths
    parts = [waiter.rows.inputs for waiter in waiters]
    inputs = np.concatenate(parts) if len(parts) > 1 else parts[0]
    return RowBlock(model, ids, deadlines, priorities, requests, lengths, inputs)
