"""Session rows to the engine and answers back: blocks of what has come, arrays from end to end."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from conveyor.domain import ModelKey
from conveyor.errors import ConveyorError
from conveyor.gateway.call import Call
from conveyor.gateway.waiting import Waiting
from conveyor.wire.port import EnginePort
from conveyor.wire.sessions import KEY_BYTES, SessionBlock, SessionCall, SessionResults, SessionState

__all__ = ["ForecastRows", "Outcomes", "SessionRows", "SessionRowsDispatcher"]

# While the engine has rows of ours, others wait for company until it answers, but no longer than this: a block of one
# costs both sides as much as one of ten, and a stream brings them one by one. Rows that are many already do not wait.
_GATHER_S = 0.004
# Where a crowd waits, whose rate counts more than a moment, the engine's answer sends it on no sooner than this after
# the rows before.
_CROWD = 4
_APART_S = 0.003
_MANY = 64


@dataclass(frozen=True, slots=True, eq=False)
class SessionRows:
    """What one call asks of sessions of one model.

    keys: those of the sessions, one after another.
    expected: for each row the steps its session must have, or `NO_EXPECTATION`.
    lengths: steps of each row.
    values: float64 [sum(lengths), features], NaN where missing.
    forecast: whether each row wants the forecast from the state after it.
    opens: whether each row opens its session; `start` is then the time of its step 0, "" if unknown.
    """

    keys: bytes
    expected: Sequence[int]
    lengths: Sequence[int]
    values: npt.NDArray[np.float64]
    forecast: bool
    opens: bool = False
    start: str = ""

    def __len__(self) -> int:
        return len(self.lengths)


@dataclass(frozen=True, slots=True, eq=False)
class ForecastRows:
    """Forecasts as the network gives them, for some rows of a call.

    rows: int64 [k], in any order. outputs: float32 [k, horizon, targets, 1 + trained levels].
    loc, scale: float64 [k, targets]. steps: int64 [k]. starts: [k], "" where unknown.
    """

    rows: npt.NDArray[np.int64]
    outputs: npt.NDArray[np.float32]
    loc: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]
    steps: npt.NDArray[np.int64]
    starts: Sequence[str]


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """What became of the rows of one call.

    steps: int64 [rows]; expires_in_s: float64 [rows]; both 0 for rows that failed.
    forecasts: one entry for each part in which the answers came.
    failures: by row.
    """

    steps: npt.NDArray[np.int64]
    expires_in_s: npt.NDArray[np.float64]
    forecasts: Sequence[ForecastRows]
    failures: Mapping[int, ConveyorError]


@dataclass(slots=True, eq=False)
class _Waiter:
    """A call's rows while they are in the engine."""

    first_id: int
    rows: SessionRows
    call: Call
    done: asyncio.Future[None]
    remaining: int
    steps: npt.NDArray[np.int64]
    expires_in_s: npt.NDArray[np.float64]
    answered: npt.NDArray[np.bool_]
    forecasts: list[ForecastRows] = field(default_factory=list)
    failures: dict[int, ConveyorError] = field(default_factory=dict)

    @property
    def end_id(self) -> int:
        return self.first_id + len(self.rows)

    def settle(self, rows: npt.NDArray[np.int64] | int, count: int) -> None:
        self.answered[rows] = True
        self.remaining -= count
        if self.remaining == 0 and not self.done.done():
            self.done.set_result(None)


class SessionRowsDispatcher:
    """The part of a dispatcher that knows sessions. Event loop only.

    Args:
        engine: Where rows go.
        take_ids: Gives the first of so many ids that no other row has.
        clock: Monotonic seconds, as the deadlines of calls.
    """

    def __init__(
        self, engine: EnginePort, take_ids: Callable[[int], int], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._engine = engine
        self._take_ids = take_ids
        self._clock = clock
        self._waiting = Waiting(clock)
        self._waiters: dict[int, _Waiter] = {}
        self._outboxes: dict[ModelKey, list[_Waiter]] = {}
        self._flushing: asyncio.Handle | None = None
        self._flushed = -math.inf

    async def run(self, call: Call, model: ModelKey, rows: SessionRows) -> Outcomes:
        """Has rows applied; each succeeds or fails by itself.

        Cancelling the call, or passing its deadline, takes out of the engine what has not begun.

        Raises:
            DeadlineExceeded: `call.deadline` passed first.
        """
        loop = asyncio.get_running_loop()
        count = len(rows)
        first_id = self._take_ids(count)
        waiter = _Waiter(
            first_id,
            rows,
            call,
            loop.create_future(),
            count,
            np.zeros(count, dtype=np.int64),
            np.zeros(count),
            np.zeros(count, dtype=np.bool_),
        )
        self._waiters.update(dict.fromkeys(range(first_id, first_id + count), waiter))
        if count >= _MANY or len(self._waiters) == count:
            self._flush_in(0.0)
        elif self._flushing is None:
            self._flush_in(_GATHER_S)
        self._outboxes.setdefault(model, []).append(waiter)
        try:
            await self._waiting.until_answered(waiter.done, call.deadline)
        finally:
            for row_id in range(first_id, first_id + count):
                del self._waiters[row_id]
            if waiter.remaining:
                self._engine.cancel((first_id + np.flatnonzero(~waiter.answered)).tolist())
        return Outcomes(waiter.steps, waiter.expires_in_s, waiter.forecasts, waiter.failures)

    async def ask(self, question: SessionCall) -> SessionState:
        """Asks about one session, as the last row of it that was answered has left it.

        Raises:
            ConveyorError: As the engine says.
        """
        return await self._engine.session(question)

    def _flush_in(self, held_s: float) -> None:
        """Has rows sent at the end of this tick, or after a time."""
        loop = asyncio.get_running_loop()
        if self._flushing is not None:
            self._flushing.cancel()
        self._flushing = loop.call_later(held_s, self._flush) if held_s else loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Sends what has come."""
        self._flushing = None
        self._flushed = self._clock()
        outboxes, self._outboxes = self._outboxes, {}
        for model, waiters in outboxes.items():
            # A caller may have gone between posting and this tick's end.
            wanted = [waiter for waiter in waiters if not waiter.done.done()]
            if wanted:
                self._engine.submit(_block(model, wanted))

    def deliver(self, results: SessionResults) -> None:
        """Hands answers to the calls that wait for them, a slice of arrays to each."""
        place = np.full(len(results.ids), -1, dtype=np.int64)
        place[results.forecast_rows] = np.arange(len(results.forecast_rows))
        order = np.argsort(results.ids, kind="stable")
        ids = results.ids[order]
        first = 0
        while first < len(ids):
            waiter = self._waiters.get(int(ids[first]))
            if waiter is None:
                # Nobody waits any more, since the row was under way when its caller left.
                first += 1
                continue
            last = first + 1 if len(waiter.rows) == 1 else int(np.searchsorted(ids, waiter.end_id))
            _hand_over(waiter, results, order[first:last], place)
            first = last
        if self._outboxes:
            waiting = sum(len(waiter.rows) for waiters in self._outboxes.values() for waiter in waiters)
            held_s = self._flushed + _APART_S - self._clock() if waiting >= _CROWD else 0.0
            self._flush_in(max(held_s, 0.0))

    def fail(self, row_id: int, error: ConveyorError) -> None:
        """Ends a row without an answer, if it is one of a session that somebody waits for."""
        waiter = self._waiters.get(row_id)
        if waiter is not None:
            row = row_id - waiter.first_id
            # Once: an engine that is lost fails what it knows, and whoever lost it what it does not.
            if not waiter.answered[row]:
                waiter.failures[row] = error
                waiter.settle(row, 1)


def _block(model: ModelKey, waiters: Sequence[_Waiter]) -> SessionBlock:
    rows = [waiter.rows for waiter in waiters]
    counts = [len(part) for part in rows]

    def spread(of_each_call: Sequence[object], dtype: type) -> npt.NDArray[np.generic]:
        return np.repeat(np.array(of_each_call, dtype=dtype), counts)

    return SessionBlock(
        model=model,
        ids=np.concatenate([np.arange(waiter.first_id, waiter.end_id, dtype=np.int64) for waiter in waiters]),
        sessions=np.frombuffer(b"".join([part.keys for part in rows]), dtype=np.uint8).reshape(-1, KEY_BYTES),
        opens=spread([part.opens for part in rows], np.bool_).astype(np.bool_),
        deadlines=spread([waiter.call.deadline for waiter in waiters], np.float64).astype(np.float64),
        expected=np.array([steps for part in rows for steps in part.expected], dtype=np.int64),
        forecasts=spread([part.forecast for part in rows], np.bool_).astype(np.bool_),
        lengths=np.array([length for part in rows for length in part.lengths], dtype=np.int32),
        values=np.concatenate([part.values for part in rows]),
        starts=[part.start for part in rows for _ in part.lengths],
    )


def _hand_over(
    waiter: _Waiter, results: SessionResults, chosen: npt.NDArray[np.int64], place: npt.NDArray[np.int64]
) -> None:
    """Takes the chosen rows of the results over into the call's."""
    rows = results.ids[chosen] - waiter.first_id
    waiter.steps[rows] = results.steps[chosen]
    waiter.expires_in_s[rows] = results.expires_in_s[chosen]
    if waiter.rows.forecast:
        places = place[chosen]
        waiter.forecasts.append(
            ForecastRows(
                rows,
                results.forecasts[places],
                results.loc[places],
                results.scale[places],
                results.steps[chosen],
                [results.starts[index] for index in places.tolist()],
            )
        )
    waiter.call.queue_s = max(waiter.call.queue_s, float(results.report.queue_s.max(initial=0.0)))
    waiter.call.compute_s = max(waiter.call.compute_s, results.report.compute_s)
    waiter.settle(rows, len(rows))
