"""The turns that the sessions of one model get on the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from conveyor.engine.batching.budget import StepBudget
from conveyor.engine.batching.costs import CostTable
from conveyor.engine.batching.fairness import FairShare
from conveyor.engine.batching.shapes import STEP_BUCKETS
from conveyor.engine.executors.port import OutOfDeviceMemory, SessionStates, StepOutcome
from conveyor.engine.outbox import Outbox
from conveyor.engine.sessions.desk import SessionDesk
from conveyor.engine.sessions.lane import LongAppend
from conveyor.engine.sessions.options import SessionOptions
from conveyor.engine.sessions.policy import choose_chunk, rows_computed
from conveyor.engine.sessions.table import Rows
from conveyor.engine.sessions.waiting import WaitingRows
from conveyor.errors import Internal, Unavailable
from conveyor.features.streams import NO_START, StreamEncoder, format_start
from conveyor.wire.messages import BatchReport
from conveyor.wire.sessions import SessionResults

__all__ = ["SessionTurns"]

_NOT_FINITE: Final = "the model gave a result that is not finite"

# The two kinds of turns, which share the device time.
_SHORT, _LONG = "short", "long"

_Floats = npt.NDArray[np.float64]
_Bools = npt.NDArray[np.bool_]


class SessionTurns:
    """Runs what waits: appends of one step, of all sessions together; longer ones a chunk at a time. Same thread as the
    engine.

    What an execution leaves is kept as a whole or not at all, and an answer leaves once it is kept.
    """

    def __init__(
        self,
        desk: SessionDesk,
        states: SessionStates,
        encoder: StreamEncoder,
        costs: CostTable,
        options: SessionOptions,
        outbox: Outbox,
        clock: Callable[[], float],
    ) -> None:
        self._desk = desk
        self._life = desk.life
        self._states = states
        self._encoder = encoder
        self._costs = costs
        self._options = options
        self._outbox = outbox
        self._clock = clock
        self._no_units = encoder.units(self._life.table.scaling(np.empty(0, dtype=np.int32)))
        self._share: FairShare[str] = FairShare()
        # Sessions of an execution, and sessions × steps of a chunk.
        self._short_budget = StepBudget(options.step_rows)
        self._long_budget = StepBudget(options.lane_rows * STEP_BUCKETS[-1])

    @property
    def _lane_rows(self) -> int:
        """Long appends at once: their states stay on the device, and half of it is for the others."""
        return min(self._options.lane_rows, self._life.residence.most_together // 2)

    def run(self) -> None:
        """One execution; something must wait or be under way."""
        short = self._ready()
        kinds = [_LONG] if len(self._desk.long) else []
        if len(short):
            kinds.append(_SHORT)
        if not kinds:
            return
        kind = self._share.next(kinds)
        started = self._clock()
        if kind is _LONG:
            self._run_long()
        else:
            most = min(self._short_budget.steps, self._life.residence.most_together - self._lane_rows)
            self._run_short(self._desk.runnable(self._desk.waiting.take(short[:most])))
        self._outbox.put_down()
        self._share.charge(kind, self._clock() - started)

    def _ready(self) -> npt.NDArray[np.intp]:
        """Where the short appends wait that may run now; long ones that may are begun, while there is room."""
        waiting, running = self._desk.waiting, self._life.table.running
        if not len(waiting):
            return np.empty(0, dtype=np.intp)
        ready = waiting.next_of_each(running)
        is_long = waiting.lengths(ready) > 1
        if not is_long.any():
            return ready
        room = self._lane_rows - len(self._desk.long)
        if room > 0:
            self._begin_long(ready[is_long][:room])
            ready = waiting.next_of_each(running)
            is_long = waiting.lengths(ready) > 1
        return ready[~is_long]

    def _run_short(self, rows: WaitingRows) -> None:
        """Rows of different sessions, of one step or none."""
        self._outbox.work_on(self._desk.model, rows["id"].tolist())
        with self._life.pinned(rows["session"]):
            for steps in (1, 0):
                some = rows[rows["length"] == steps]
                if len(some):
                    self._step(some, steps)

    def _step(self, rows: WaitingRows, steps: int) -> None:
        """Rows of so many steps each; if that fails, each half by itself, down to the row at fault."""
        started = self._clock()
        sessions: Rows = rows["session"]
        try:
            outcome, padding = self._execute(sessions, rows["value"][:, None][:, :steps], rows["forecast"], None)
        except OutOfDeviceMemory as error:
            self._short_budget.halve(len(rows))
            if len(rows) > 1:
                self._desk.waiting.put_back(rows)
            else:
                self._fail(rows, error)
            return
        except Exception as error:
            # Where the state directory fails no row is at fault.
            if len(rows) == 1 or isinstance(error, Unavailable):
                self._fail(rows, error)
                return
        else:
            self._short_budget.grow()
            compute_s = self._clock() - started
            if not outcome.finite.all():
                self._fail(rows[~outcome.finite], None)
                rows, sessions = rows[outcome.finite], sessions[outcome.finite]
            self._life.table.steps[sessions] += steps
            count = len(outcome.finite)
            queue_s = started - rows["arrival"]
            report = BatchReport(self._desk.model, queue_s, compute_s, count, False, count * steps, padding)
            self._answer(rows["id"], sessions, rows["forecast"], outcome.forecasts, report)
            return
        # Out of the handler: the error would keep what the failed attempt had on the device.
        half = len(rows) // 2
        self._step(rows[:half], steps)
        self._step(rows[half:], steps)

    def _begin_long(self, places: npt.NDArray[np.intp]) -> None:
        """Begins appends of several steps, by where they wait."""
        desk, table = self._desk, self._life.table
        now = self._clock()
        rows = desk.runnable(desk.waiting.take(places))
        for index, row in enumerate(rows):
            row_id, session = int(row["id"]), int(row["session"])
            try:
                before = None if row["opens"] else self._life.record(session)
            except OutOfDeviceMemory:
                desk.waiting.put_back(rows[index:])
                return
            append = LongAppend(
                id=row_id,
                session=session,
                values=desk.waiting.values(row_id),
                forecast=bool(row["forecast"]),
                before=before,
                arrival=float(row["arrival"]),
                started=now,
            )
            desk.waiting.let_go([row_id])
            table.running[session] = True
            desk.long.add(append)

    def _run_long(self) -> None:
        """The next chunk of the long append whose turn it is, and of those that can go on with it."""
        appends = list(self._desk.long)
        while len(appends) > 1 and rows_computed(len(appends)) > self._long_budget.steps:
            appends.pop()
        fitting = max(self._long_budget.steps // rows_computed(len(appends)), 1)
        left = [append.left for append in appends]
        steps, chosen = choose_chunk(left, fitting, self._costs, self._options.slice_s)
        self._chunk([appends[position] for position in chosen], steps)
        # The next one leads the next chunk: behind a long history a short append would wait for the whole of it.
        self._desk.long.postpone(appends[0])

    def _chunk(self, appends: Sequence[LongAppend], steps: int) -> None:
        """The next steps of some appends; those that fail are undone."""
        started = self._clock()
        sessions: Rows = np.array([append.session for append in appends], dtype=np.int32)
        values = np.stack([append.values[append.done : append.done + steps] for append in appends])
        ends = np.array([append.left == steps for append in appends])
        wanted = ends & np.array([append.forecast for append in appends])
        done = np.array([append.done for append in appends], dtype=np.int64)
        try:
            outcome, padding = self._execute(sessions, values, wanted, done)
        except OutOfDeviceMemory as error:
            self._long_budget.halve(rows_computed(len(appends)) * steps)
            if len(appends) == 1 and steps == 1:
                self._undo(appends[0], error)
            return
        except Exception as error:
            if len(appends) == 1:
                self._undo(appends[0], error)
                return
        else:
            self._long_budget.grow()
            seconds = (self._clock() - started) / len(appends)
            for append in appends:
                append.done += steps
                append.compute_s += seconds
                append.padding += padding / len(appends)
            for position in np.flatnonzero(~outcome.finite).tolist():
                self._undo(appends[position], None)
            ended = outcome.finite & ends
            self._finish([appends[position] for position in np.flatnonzero(ended).tolist()], outcome.forecasts)
            return
        for append in appends:
            self._chunk([append], steps)

    def _finish(self, appends: Sequence[LongAppend], forecasts: npt.NDArray[np.float32]) -> None:
        """Answers appends that have come to their end."""
        if not appends:
            return
        sessions: Rows = np.array([append.session for append in appends], dtype=np.int32)
        self._life.table.steps[sessions] += [len(append.values) for append in appends]
        for append in appends:
            self._desk.put_down(append)
        report = BatchReport(
            self._desk.model,
            np.array([append.started - append.arrival for append in appends]),
            sum(append.compute_s for append in appends),
            len(appends),
            True,
            sum(len(append.values) for append in appends),
            round(sum(append.padding for append in appends)),
        )
        ids = np.array([append.id for append in appends], dtype=np.int64)
        self._answer(ids, sessions, np.array([append.forecast for append in appends]), forecasts, report)

    def _execute(
        self, sessions: Rows, values: _Floats, wanted: _Bools, done: npt.NDArray[np.int64] | None
    ) -> tuple[StepOutcome, int]:
        """Advances sessions by the same number of steps each, and keeps what is finite.

        Args:
            values: float64 [sessions, steps, features].
            done: int64 [sessions], steps of an append that ran before.

        Returns:
            The outcome, and how many steps were computed that nobody asked for.
        """
        table = self._life.table
        self._life.residence.fetch(sessions)
        before = table.steps[sessions] if done is None else table.steps[sessions] + done
        encoded = self._encoder.advance(table.scaling(sessions), before, values, table.start_us[sessions])
        count, steps, width = encoded.inputs.shape
        rows = rows_computed(count)
        inputs = np.zeros((rows, steps, width), dtype=np.float32)
        inputs[:count] = encoded.inputs
        outcome = self._states.step(table.slot[sessions], inputs, wanted)
        kept, scaling = sessions, encoded.scaling
        if not outcome.finite.all():
            kept, scaling = sessions[outcome.finite], scaling.rows(outcome.finite)
        table.set_scaling(kept, scaling)
        return outcome, (rows - count) * steps

    def _answer(
        self,
        ids: npt.NDArray[np.int64],
        sessions: Rows,
        wanted: _Bools,
        forecasts: npt.NDArray[np.float32],
        report: BatchReport,
    ) -> None:
        """Tells what has been kept."""
        if not len(ids):
            return
        table = self._life.table
        table.use(sessions, self._clock())
        forecast_rows = np.flatnonzero(wanted)
        asking = sessions if len(forecast_rows) == len(sessions) else sessions[forecast_rows]
        loc, scale = self._encoder.units(table.scaling(asking)) if len(asking) else self._no_units
        times = zip(table.start_us[asking].tolist(), table.offset_us[asking].tolist(), strict=True)
        self._outbox.send(
            SessionResults(
                self._desk.model,
                ids.copy(),
                table.steps[sessions],
                np.full(len(ids), self._options.idle_s),
                forecast_rows.astype(np.int32),
                forecasts,
                loc,
                scale,
                ["" if start_us == NO_START else format_start(start_us, offset_us) for start_us, offset_us in times],
                report,
            )
        )

    def _undo(self, append: LongAppend, error: Exception | None) -> None:
        """An append can't go on."""
        self._tell_failure([append.id], error)
        self._desk.take_back(append)

    def _tell_failure(self, ids: Sequence[int], error: Exception | None) -> None:
        if error is None:
            self._outbox.fail(self._desk.model, ids, Internal, _NOT_FINITE)
        elif isinstance(error, Unavailable):
            self._outbox.fail(self._desk.model, ids, Unavailable, error.message)
        else:
            self._outbox.report_fault(self._desk.model, ids, error)

    def _fail(self, rows: WaitingRows, error: Exception | None) -> None:
        """Rows did not run; None if their result is not finite."""
        self._tell_failure(rows["id"].tolist(), error)
        for session in rows["session"][rows["opens"]].tolist():
            self._desk.undo_opening(session)
