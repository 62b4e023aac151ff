"""Rows to the engine and answers back: one block a tick of the event loop, one answer a row."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from conveyor.domain import ModelKey
from conveyor.errors import ConveyorError, DeadlineExceeded, QueueFull, error_named
from conveyor.gateway.call import Call
from conveyor.gateway.posted import Block, Posted, RowResult, row_block
from conveyor.gateway.session_rows import SessionRowsDispatcher
from conveyor.lifecycle.alarms import Alarms
from conveyor.wire.messages import BatchReport, FailureBlock, ResultBlock, Rows
from conveyor.wire.port import EnginePort, Reply
from conveyor.wire.sessions import SessionResults

__all__ = ["Dispatcher"]

# How long rows wait at most for company while the engine has others of ours, which it could not leave for them: a block
# costs both sides as much as ten rows.
_GATHER_S = 0.001
# How long requests that come one by one wait to be read together, while engines have more blocks of ours than there are
# engines, so that some wait there: about as long as a batch.
_GATHER_BEHIND_S = 0.004
# A request of so many rows is company enough.
_COMPANY = 32

# When to try again where nothing better is known.
_SOON_S = 1.0


class Dispatcher:
    """Sends rows through an `EnginePort` and hands each caller its own answers. Made and used inside one running event
    loop.

    Args:
        engine: Where rows go; this dispatcher becomes its sink.
        observe: Told what each execution cost.
        clock: Monotonic seconds, as the deadlines of calls.
        room_in_s: Seconds after which there should be room in a queue that is full.
        num_engines: How many share the rows.

    sessions: where rows of sessions go; their ids are of the same space.
    """

    def __init__(
        self,
        engine: EnginePort,
        observe: Callable[[BatchReport], None],
        clock: Callable[[], float] = time.monotonic,
        room_in_s: Callable[[], float] = lambda: _SOON_S,
        num_engines: int = 1,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._engine = engine
        self._observe = observe
        self._clock = clock
        self._room_in_s = room_in_s
        self._num_engines = num_engines
        self._next_id = 0
        # By the ids of their rows that are not answered.
        self._posted: dict[int, Posted] = {}
        self._alarms: Alarms[Posted] = Alarms(self._expire, clock)
        self._outboxes: dict[ModelKey, list[Posted]] = {}
        # Who is told before rows are sent.
        self._readers: list[Callable[[], None]] = []
        # When that will be, `-inf` for the end of this tick, and the timer while it is put off.
        self._due_at = math.inf
        self._holding: asyncio.TimerHandle | None = None
        # Those that have been sent, until the last of their requests is over.
        self._blocks = 0
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
        if not rows.lengths:
            return []
        over: asyncio.Future[None] = self._loop.create_future()
        posted = self.post(call, model, rows, lambda: None if over.done() else over.set_result(None))
        posted.awaited = over
        try:
            await over
        finally:
            self.drop(posted)
        if posted.error is not None:
            raise posted.error
        return posted.results

    def post(self, call: Call, model: ModelKey, rows: Rows, on_over: Callable[[], None]) -> Posted:
        """Sends one row or more, at the end of this tick at the earliest.

        Args:
            on_over: Called once, not from within this call, when every row is answered, one has failed or
                `call.deadline` has passed; not if the rows are dropped before. Must not raise.
        """
        posted = Posted(call, model, rows, self._take_ids(len(rows.lengths)), on_over)
        for row_id in posted.ids:
            self._posted[row_id] = posted
        self._alarms.set(posted, call.deadline)
        self._put_out(posted)
        return posted

    def drop(self, posted: Posted) -> None:
        """Takes out of the engine's queue what is not answered; nothing happens to what is over."""
        if not posted.is_over:
            self._end(posted)

    def _take_ids(self, count: int) -> int:
        first = self._next_id
        self._next_id += count
        return first

    def gather(self, read: Callable[[], None]) -> None:
        """Calls `read` once, when requests that have come by then should be read and posted: at the end of this tick,
        or where rows would be held back, just before they are sent; longer than rows while engines have enough to do.
        Must not raise."""
        self._readers.append(read)
        gather_s = _GATHER_BEHIND_S if self._blocks > self._num_engines else _GATHER_S
        self._flush_at(self._flushed + gather_s if self._posted else -math.inf)

    def _put_out(self, posted: Posted) -> None:
        rows = len(posted.results)
        self._outboxes.setdefault(posted.model, []).append(posted)
        needs_company = rows < _COMPANY and len(self._posted) > rows
        self._flush_at(self._flushed + _GATHER_S if needs_company else -math.inf)

    def _flush_at(self, moment: float) -> None:
        """Has what waits sent at this moment, if not before; at the end of this tick if it is past."""
        if moment >= self._due_at:
            return
        if self._holding is not None:
            self._holding.cancel()
        held_s = moment - self._clock()
        if held_s > 0.0:
            self._due_at, self._holding = moment, self._loop.call_later(held_s, self._flush)
        else:
            self._due_at, self._holding = -math.inf, None
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        # What readers post leaves now: it needs no other moment.
        self._due_at, self._holding = -math.inf, None
        readers, self._readers = self._readers, []
        try:
            for read in readers:
                read()
        finally:
            self._due_at = math.inf
            self._send()
            if self._readers:
                # Of requests that came while others were read.
                self._flush_at(-math.inf)

    def _send(self) -> None:
        self._flushed = self._clock()
        outboxes, self._outboxes = self._outboxes, {}
        for model, requests in outboxes.items():
            # A caller may have gone between posting and this tick's end: its rows are nobody's.
            wanted = [posted for posted in requests if posted.is_wanted]
            if wanted:
                self._blocks += 1
                block = Block(len(wanted))
                for posted in wanted:
                    posted.block = block
                self._engine.submit(row_block(model, wanted))

    def _on_reply(self, reply: Reply) -> None:
        if self._holding is not None:
            # The engine may be idle now. Not at once: those that are answered may ask again in this tick.
            self._flush_at(-math.inf)
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
        compute_s = block.report.compute_s
        over = []
        for row_id, result, queue_s in zip(
            block.ids.tolist(), _row_results(block), block.report.queue_s.tolist(), strict=True
        ):
            posted = self._posted.pop(row_id, None)
            if posted is not None:
                posted.results[row_id - posted.first_id] = result
                posted.remaining -= 1
                call = posted.call
                if queue_s > call.queue_s:
                    call.queue_s = queue_s
                if compute_s > call.compute_s:
                    call.compute_s = compute_s
                if not posted.remaining:
                    posted.is_over = True
                    over.append(posted)
        for posted in over:
            self._alarms.unset(posted)
            self._leave_block(posted)
            posted.on_over()

    def _fail(self, block: FailureBlock) -> None:
        # Rows of sessions may be items of one call, which shows the error once for each: it can be one object.
        error = self._error(block)
        failed = []
        for row_id in block.ids:
            posted = self._posted.pop(row_id, None)
            if posted is None:
                self.sessions.fail(row_id, error)
            elif not posted.is_over:
                posted.error = self._error(block)
                posted.is_over = True
                failed.append(posted)
        for posted in failed:
            unanswered = self._forget(posted)
            if unanswered:
                # Not now: the engine may be in the middle of telling more failures.
                self._loop.call_soon(self._engine.cancel, unanswered)
            posted.on_over()

    def _expire(self, posted: Posted) -> None:
        posted.error = DeadlineExceeded("the deadline passed before the answer was ready")
        self._end(posted)
        posted.on_over()

    def _end(self, posted: Posted) -> None:
        """Nobody waits any more for what is not answered."""
        posted.is_over = True
        unanswered = self._forget(posted)
        if unanswered:
            self._engine.cancel(unanswered)

    def _forget(self, posted: Posted) -> list[int]:
        """Returns the ids of its rows that are not answered."""
        self._alarms.unset(posted)
        self._leave_block(posted)
        return [row_id for row_id in posted.ids if self._posted.pop(row_id, None)]

    def _leave_block(self, posted: Posted) -> None:
        block = posted.block
        if block is not None:
            block.waiting -= 1
            if not block.waiting:
                self._blocks -= 1

    def _error(self, block: FailureBlock) -> ConveyorError:
        kind = error_named(block.error)
        retry_after_s = None
        if kind.retryable:
            retry_after_s = self._room_in_s() if kind is QueueFull else _SOON_S
        return kind(block.message, retry_after_s=retry_after_s)


def _row_results(block: ResultBlock) -> Iterable[RowResult]:
    """The parts of the arrays that are each row's."""
    ends = np.cumsum(block.lengths).tolist() if block.stepwise else range(1, len(block.ids) + 1)
    start = 0
    for end in ends:
        yield {name: array[start:end] for name, array in block.arrays.items()}
        start = end
