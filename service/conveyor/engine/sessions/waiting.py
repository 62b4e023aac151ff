"""Opens and appends that wait, of one model: in the order in which they came, each session's one after the other. Pure.

Kept in columns, since a thousand one-step appends may come in one message and leave in one execution.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["WaitingRows", "WaitingSteps"]

# Of the dtype that `WaitingSteps` makes.
WaitingRows = npt.NDArray[np.void]


class WaitingSteps:
    """What waits.

    Rows are structured arrays: `id`, `session` (row of the table), `length`, `deadline`, `arrival`, `expected`,
    `forecast`, `opens` and `value`, the only step of a row of one step. The steps of longer rows lie beside them.
    """

    def __init__(self, num_features: int) -> None:
        self.dtype = np.dtype(
            [
                *(("id", np.int64), ("session", np.int32), ("length", np.int32)),
                *(("deadline", np.float64), ("arrival", np.float64), ("expected", np.int64)),
                *(("forecast", np.bool_), ("opens", np.bool_), ("value", np.float64, (num_features,))),
            ]
        )
        self._rows: WaitingRows = np.empty(0, dtype=self.dtype)
        self._added: list[WaitingRows] = []
        self._long: dict[int, npt.NDArray[np.float64]] = {}
        self._count = 0
        self._next_deadline = math.inf
        self._first = np.empty(0, dtype=np.int32)
        self.num_steps = 0

    def __len__(self) -> int:
        return self._count

    def add(self, rows: WaitingRows, values: npt.NDArray[np.float64]) -> None:
        """Adds rows behind those there are. values: float64 [sum of lengths, features], which is copied."""
        lengths = rows["length"]
        if len(values) == len(rows) and (lengths == 1).all():
            rows["value"] = values
        else:
            ends = np.cumsum(lengths)
            single = lengths == 1
            rows["value"][single] = values[ends[single] - 1]
            for index in np.flatnonzero(lengths > 1).tolist():
                end = int(ends[index])
                self._long[int(rows["id"][index])] = values[end - int(lengths[index]) : end].copy()
        self._added.append(rows)
        self._count += len(rows)
        self.num_steps += len(values)
        self._next_deadline = min(self._next_deadline, rows["deadline"].min(initial=math.inf))

    def ids(self) -> list[int]:
        """The rows that wait, in order."""
        found: list[int] = self._all()["id"].tolist()
        return found

    def sessions(self) -> npt.NDArray[np.int32]:
        """The sessions of the rows that wait, in order: rows of the table."""
        found: npt.NDArray[np.int32] = self._all()["session"]
        return found

    def values(self, row_id: int) -> npt.NDArray[np.float64]:
        """The steps of a row of more than one: float64 [length, features]."""
        return self._long[row_id]

    def next_of_each(self, running: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
        """Positions of the rows that may run now, in order: the first of each session that has none under way.

        Args:
            running: bool [rows of the table].
        """
        sessions = self._all()["session"]
        if len(sessions) == 1:
            return np.flatnonzero(~running[sessions])
        # The first of equals is what the last write leaves, when written from the end.
        if len(self._first) < len(running):
            self._first = np.empty(len(running), dtype=np.int32)
        positions = np.arange(len(sessions), dtype=np.int32)
        self._first[sessions[::-1]] = positions[::-1]
        return np.flatnonzero((self._first[sessions] == positions) & ~running[sessions])

    def lengths(self, positions: npt.NDArray[np.intp]) -> npt.NDArray[np.int32]:
        """The lengths of rows."""
        found: npt.NDArray[np.int32] = self._all()["length"][positions]
        return found

    def take(self, positions: npt.NDArray[np.intp]) -> WaitingRows:
        """Takes rows out, in the order of the positions."""
        rows = self._all()
        if len(positions) == len(rows):
            # All of them, in order.
            self._rows, self._count, self.num_steps = rows[:0], 0, 0
            return rows
        taken = rows[positions]
        left = np.ones(len(rows), dtype=np.bool_)
        left[positions] = False
        self._keep(left)
        return taken

    def put_back(self, rows: WaitingRows) -> None:
        """Puts rows that were taken, and did not run, before all others."""
        self._rows = np.concatenate([rows, self._all()])
        self._count += len(rows)
        self.num_steps += int(rows["length"].sum())
        self._next_deadline = min(self._next_deadline, rows["deadline"].min(initial=math.inf))

    def drop(self, ids: Collection[int]) -> WaitingRows:
        """Takes out rows by their ids; ids that do not wait are ignored."""
        return self._take_all(np.isin(self._all()["id"], np.fromiter(ids, dtype=np.int64, count=len(ids))))

    def drop_sessions(self, sessions: npt.NDArray[np.int32]) -> WaitingRows:
        """Takes out the rows of sessions."""
        return self._take_all(np.isin(self._all()["session"], sessions))

    def expired(self, now: float) -> WaitingRows:
        """Takes out the rows whose deadline has passed."""
        if self._next_deadline > now:
            return self._rows[:0]
        found = self._take_all(self._all()["deadline"] <= now)
        self._next_deadline = self._rows["deadline"].min(initial=math.inf)
        return found

    def waits_for(self, session: int) -> bool:
        """Whether a row of the session waits."""
        return bool((self._all()["session"] == session).any())

    def let_go(self, ids: Sequence[int]) -> None:
        """Forgets the steps of longer rows that were taken."""
        for row_id in ids:
            self._long.pop(row_id, None)

    def _all(self) -> WaitingRows:
        if self._added:
            first = [self._rows] if len(self._rows) else []
            found = [*first, *self._added]
            self._rows = found[0] if len(found) == 1 else np.concatenate(found)
            self._added.clear()
        return self._rows

    def _take_all(self, wanted: npt.NDArray[np.bool_]) -> WaitingRows:
        if not wanted.any():
            return self._rows[:0]
        taken = self._rows[wanted]
        self._keep(~wanted)
        self.let_go(taken["id"][taken["length"] > 1].tolist())
        return taken

    def _keep(self, wanted: npt.NDArray[np.bool_]) -> None:
        self._rows = self._rows[wanted]
        self._count = len(self._rows)
        self.num_steps = int(self._rows["length"].sum())
