"""What is asked of the sessions of one model, from its arrival until it runs or is refused."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from conveyor.domain import ModelKey
from conveyor.engine.outbox import Outbox
from conveyor.engine.sessions.index import ABSENT
from conveyor.engine.sessions.lane import LongAppend, LongAppends
from conveyor.engine.sessions.life import SessionLife
from conveyor.engine.sessions.options import SessionOptions
from conveyor.engine.sessions.table import as_keys
from conveyor.engine.sessions.waiting import WaitingRows, WaitingSteps
from conveyor.errors import Aborted, ConveyorError, DeadlineExceeded, InvalidArgument, NotFound, QueueFull
from conveyor.features.series import MAX_MAGNITUDE
from conveyor.features.streams import NO_START, StreamEncoder, read_start
from conveyor.wire.sessions import NO_EXPECTATION, SessionBlock

__all__ = ["NO_SESSION", "SessionDesk"]

NO_SESSION: Final = "there is no such session; it was closed, or ended after its idle time"

# Many sessions start at the same time: that of the day, or of the hour.
_read_start = lru_cache(maxsize=4096)(read_start)

_Bools = npt.NDArray[np.bool_]


class SessionDesk:
    """What waits for the sessions of one model, and what is under way. Same thread as the engine.

    A row that can't be taken, or that must not run when its turn comes, is answered here.
    """

    def __init__(
        self,
        model: ModelKey,
        life: SessionLife,
        waiting: WaitingSteps,
        encoder: StreamEncoder,
        options: SessionOptions,
        outbox: Outbox,
        clock: Callable[[], float],
    ) -> None:
        self.model = model
        self.life = life
        self.waiting = waiting
        self._num_features = waiting.dtype["value"].shape[0]
        self.long = LongAppends()
        self._encoder = encoder
        self._options = options
        self._outbox = outbox
        self._clock = clock

    @property
    def busy(self) -> bool:
        """Whether anything waits or is under way."""
        return len(self.waiting) > 0 or len(self.long) > 0

    def ids(self) -> list[int]:
        """The rows that wait or are under way."""
        return [*self.waiting.ids(), *(append.id for append in self.long)]

    def submit(self, block: SessionBlock) -> None:
        """Takes rows; what can't be taken is answered at once."""
        if block.values.shape[1] != self._num_features:
            message = f"values must have {self._num_features} numbers a step"
            self._refuse(block.ids, InvalidArgument, message)
            return
        rows = self._to_rows(block)
        taken = self._fitting(block, self._check_values(block))
        if block.opens.any():
            taken = (taken & ~block.opens) | self._open(block, taken & block.opens)
        found = self.life.find(block.sessions[taken])
        absent = np.flatnonzero(taken)[found == ABSENT]
        if len(absent):
            self._refuse(rows["id"][absent], NotFound, NO_SESSION)
            taken[absent] = False
            found = found[found != ABSENT]
        values = block.values
        if not taken.all():
            rows, values = rows[taken], values[np.repeat(taken, block.lengths)]
        rows["session"] = found
        self.life.table.use(found, self._clock())
        self.waiting.add(rows, values)

    def cancel(self, ids: Collection[int]) -> None:
        """Drops rows nobody waits for. One that has begun runs to its end, but what opens a session is undone."""
        if len(self.waiting):
            self._end_unopened(self.waiting.drop(ids))
        if len(self.long):
            for append in [found for row_id in ids if (found := self.long.get(row_id)) is not None]:
                if append.before is None:
                    self.take_back(append)

    def expire(self, now: float) -> None:
        """Answers the rows whose deadline has passed before they began."""
        late = self.waiting.expired(now)
        if len(late):
            self._refuse(late["id"], DeadlineExceeded, "the deadline passed while the request waited")
            self._end_unopened(late)

    def runnable(self, rows: WaitingRows) -> WaitingRows:
        """Of rows that were taken because it is their turn, those that may run; the others are answered."""
        table = self.life.table
        steps = table.steps[rows["session"]]
        wrong = (rows["expected"] != NO_EXPECTATION) & (rows["expected"] != steps)
        if wrong.any():
            for row_id, count in zip(rows["id"][wrong].tolist(), steps[wrong].tolist(), strict=True):
                self._refuse([row_id], Aborted, f"the session has {count} steps; nothing was applied")
            rows, steps = self._without(rows, wrong), steps[~wrong]
        starts, offsets = table.start_us[rows["session"]], table.offset_us[rows["session"]]
        beyond = self._encoder.reaches_too_far(starts, offsets, steps + rows["length"] - 1)
        if beyond.any():
            self._refuse(rows["id"][beyond], InvalidArgument, "the steps reach beyond the year 9999")
            rows = self._without(rows, beyond)
        if rows["forecast"].any():
            blind = rows["forecast"] & ~self._will_know_targets(rows)
            if blind.any():
                self._refuse(rows["id"][blind], InvalidArgument, "a forecast needs one observation of each target")
                rows = self._without(rows, blind)
        return rows

    def _without(self, rows: WaitingRows, stopped: _Bools) -> WaitingRows:
        """The rows that go on, the others being answered."""
        self.waiting.let_go(rows["id"][stopped].tolist())
        self._end_unopened(rows[stopped])
        return rows[~stopped]

    def put_down(self, append: LongAppend) -> None:
        """An append is not under way any more."""
        self.long.remove(append)
        self.life.table.running[append.session] = False

    def take_back(self, append: LongAppend) -> None:
        """An append does not go on: its session is as it was before, or gone if this was to open it."""
        self.put_down(append)
        if append.before is None:
            self.undo_opening(append.session)
        else:
            self.life.put(append.session, append.before)

    def undo_opening(self, session: int) -> None:
        """Ends a session whose opening will not come to its end, with all that waits for it."""
        self.end_session(session, NO_SESSION)

    def end_session(self, session: int, message: str) -> None:
        """Ends a session at somebody's wish; what waits for it or is under way fails."""
        sessions = np.array([session], dtype=np.int32)
        append = self.long.of(session)
        if append is not None:
            self.put_down(append)
            self._refuse([append.id], NotFound, message)
        self._refuse(self.waiting.drop_sessions(sessions)["id"], NotFound, message)
        self.life.end(sessions, None)

    def give_up(self, error: type[ConveyorError], message: str) -> None:
        """Fails every row that waits or is under way, and leaves sessions as they were before it."""
        appends = list(self.long)
        waiting = self.waiting.drop(self.waiting.ids())
        self._refuse([*waiting["id"].tolist(), *(append.id for append in appends)], error, message)
        for append in appends:
            self.take_back(append)
        self._end_unopened(waiting)

    def fail_all(self, error: type[ConveyorError], message: str) -> None:
        """Fails every row that waits or is under way, for an engine whose sessions are not to be had any more."""
        ids = self.ids()
        self.waiting.drop(ids)
        for append in list(self.long):
            self.long.remove(append)
        self._refuse(ids, error, message)

    def _to_rows(self, block: SessionBlock) -> WaitingRows:
        rows = np.zeros(len(block.ids), dtype=self.waiting.dtype)
        for name, column in (
            *(("id", block.ids), ("length", block.lengths), ("deadline", block.deadlines)),
            *(("expected", block.expected), ("forecast", block.forecasts), ("opens", block.opens)),
        ):
            rows[name] = column
        rows["arrival"] = self._clock()
        return rows

    def _check_values(self, block: SessionBlock) -> _Bools:
        """Which rows have values that can be computed with: bool [rows]."""
        good = np.ones(len(block.ids), dtype=np.bool_)
        # NaN, for missing, is not beyond anything.
        wrong = np.abs(block.values) > MAX_MAGNITUDE
        if wrong.any():
            owners = np.repeat(np.arange(len(good)), block.lengths)
            good[owners[wrong.any(axis=1)]] = False
            message = f"values must be finite and within {MAX_MAGNITUDE:g} of zero"
            self._refuse(block.ids[~good], InvalidArgument, message)
        return good

    def _fitting(self, block: SessionBlock, taken: _Bools) -> _Bools:
        """Which of the rows there is room for: bool [rows]. One that waits alone always fits."""
        all_rows = len(taken) + len(self.waiting)
        all_values = block.values.size + self.waiting.num_steps * block.values.shape[1]
        if all_rows <= self._options.rows and all_values <= self._options.values:
            return taken
        rows = np.cumsum(taken) + len(self.waiting)
        steps = np.cumsum(np.where(taken, block.lengths, 0)) + self.waiting.num_steps
        room = (rows <= self._options.rows) & (steps * block.values.shape[1] <= self._options.values)
        fits = taken & (room | (rows == 1))
        self._refuse(block.ids[taken & ~fits], QueueFull, "too many appends wait; try again later")
        return np.asarray(fits, np.bool_)

    def _open(self, block: SessionBlock, opening: _Bools) -> _Bools:
        """Begins the sessions that are to be opened: bool [rows], where that was done."""
        places = np.flatnonzero(opening)
        if not len(places):
            return opening
        starts: list[tuple[int, int]] = []
        begun = []
        for place in places.tolist():
            try:
                starts.append(_read_start(block.starts[place]) if block.starts[place] else (NO_START, 0))
                begun.append(place)
            except InvalidArgument as error:
                self._refuse([int(block.ids[place])], InvalidArgument, error.message)
        places = np.array(begun, dtype=np.intp)
        _, first = np.unique(as_keys(block.sessions[places]), axis=0, return_index=True)
        new = np.zeros(len(places), dtype=np.bool_)
        new[first] = True
        new &= self.life.find(block.sessions[places]) == ABSENT
        self._refuse(block.ids[places[~new]], Aborted, "there is a session of this id already")
        places = places[new]
        opened = np.zeros_like(opening)
        try:
            sessions = self.life.open(block.sessions[places])
        except QueueFull as error:
            room = self.life.room
            self._refuse(block.ids[places[room:]], QueueFull, error.message)
            places = places[:room]
            sessions = self.life.open(block.sessions[places])
        table = self.life.table
        known = np.array(starts, dtype=np.int64).reshape(-1, 2)[new][: len(places)]
        table.start_us[sessions], table.offset_us[sessions] = known.T
        opened[places] = True
        return opened

    def _will_know_targets(self, rows: WaitingRows) -> _Bools:
        """Whether every target will have been observed once these steps have run: bool [rows]."""
        known = self._encoder.knows_targets(self.life.table.scaling(rows["session"]))
        for index in np.flatnonzero(~known).tolist():
            row = rows[index]
            values = self.waiting.values(int(row["id"])) if row["length"] > 1 else row["value"][None][: row["length"]]
            known[index] = self._encoder.knows_targets_after(self.life.table.weight[row["session"]], values)
        return known

    def _end_unopened(self, rows: WaitingRows) -> None:
        """Ends the sessions that rows, which will not run, would have opened."""
        for session in rows["session"][rows["opens"]].tolist():
            self.end_session(session, NO_SESSION)

    def _refuse(self, ids: Sequence[int] | npt.NDArray[np.int64], error: type[ConveyorError], message: str) -> None:
        self._outbox.fail(self.model, list(map(int, ids)), error, message)
