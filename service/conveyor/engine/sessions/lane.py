"""Appends of several steps: begun, run on by a chunk at a time beside everything else, finished or undone. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from conveyor.engine.sessions.record import Record

__all__ = ["LongAppend", "LongAppends"]


@dataclass(slots=True, eq=False)
class LongAppend:
    """An append of which some steps may be in the session's state already.

    session: row of the table.
    values: float64 [steps, features].
    before: the session as it was, None if this opens it.
    started, arrival: monotonic seconds.
    done: steps that have run.
    compute_s, padding: device time, and steps computed for nobody, so far.
    """

    id: int
    session: int
    values: npt.NDArray[np.float64]
    forecast: bool
    before: Record | None
    arrival: float
    started: float
    done: int = 0
    compute_s: float = 0.0
    padding: float = 0.0

    @property
    def left(self) -> int:
        """Steps that have not run."""
        return len(self.values) - self.done


class LongAppends:
    """Those of one model that are under way, in the order in which they lead a chunk; one of a session at most."""

    def __init__(self) -> None:
        self._by_id: dict[int, LongAppend] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[LongAppend]:
        return iter(self._by_id.values())

    def __contains__(self, append: LongAppend) -> bool:
        return self._by_id.get(append.id) is append

    def add(self, append: LongAppend) -> None:
        """One begins."""
        self._by_id[append.id] = append

    def remove(self, append: LongAppend) -> None:
        """One ends."""
        del self._by_id[append.id]

    def postpone(self, append: LongAppend) -> None:
        """All others lead before this one does again, if it has not ended."""
        if append in self:
            self._by_id[append.id] = self._by_id.pop(append.id)

    def get(self, row_id: int) -> LongAppend | None:
        """The one of an id."""
        return self._by_id.get(row_id)

    def of(self, session: int) -> LongAppend | None:
        """The one of a session."""
        return next((append for append in self if append.session == session), None)
