"""The messages about streaming sessions. As with rows, the unit is a block: what one front end has for the sessions of
one model on one engine in one tick.

A session is known by the 16 bytes of its key. Its id is `<model>.<version>.<key in hexadecimal>`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from conveyor.domain import ModelKey
from conveyor.errors import Unavailable
from conveyor.wire.messages import BatchReport, FailureBlock

__all__ = [
    "KEY_BYTES",
    "NO_EXPECTATION",
    "NUM_PARTS",
    "SessionBlock",
    "SessionCall",
    "SessionResults",
    "SessionState",
    "engine_of",
    "part_of",
]

KEY_BYTES = 16

# In `SessionBlock.expected`: the caller does not say how many steps the session should have.
NO_EXPECTATION = -1


# Sessions are divided into so many parts, whatever the number of engines: a part belongs to one engine.
NUM_PARTS = 64


def part_of(sessions: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The part that each session belongs to: uint8 [rows, 16] → uint8 [rows], below `NUM_PARTS`."""
    return np.asarray(sessions[:, 0] % NUM_PARTS, np.uint8)


def engine_of(sessions: npt.NDArray[np.uint8], num_engines: int) -> npt.NDArray[np.uint8]:
    """The number of the engine that has each session, of all engines there should be: uint8 [rows]."""
    return np.asarray(part_of(sessions) % num_engines, np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class SessionBlock:
    """Sessions to open, and steps to append to sessions.

    All steps of a row are applied or none: once the first has run, the row runs to its end, whoever leaves, except that
    an opening whose caller leaves is undone. Rows of one session are applied in the order in which they come.

    ids: int64 [rows], from the same space as those of a `RowBlock`.
    sessions: uint8 [rows, 16].
    opens: bool [rows]; the session must not exist, and for all other rows it must.
    deadlines: float64 [rows], monotonic seconds, `NO_DEADLINE` where there is none.
    expected: int64 [rows], the steps the session must have before, or `NO_EXPECTATION`.
    forecasts: bool [rows], whether the forecast from the state after these steps is wanted.
    lengths: int32 [rows], steps of each row; zero is valid and changes nothing.
    values: float64 [sum(lengths), features], the rows one after another, NaN where missing.
    starts: [rows], ISO-8601 time of step 0 for a row that opens; "" where unknown and for all other rows.
    """

    model: ModelKey
    ids: npt.NDArray[np.int64]
    sessions: npt.NDArray[np.uint8]
    opens: npt.NDArray[np.bool_]
    deadlines: npt.NDArray[np.float64]
    expected: npt.NDArray[np.int64]
    forecasts: npt.NDArray[np.bool_]
    lengths: npt.NDArray[np.int32]
    values: npt.NDArray[np.float64]
    starts: Sequence[str]

    def rows(self, chosen: npt.NDArray[np.bool_]) -> SessionBlock:
        """Some of the rows as a block of their own. chosen: bool [rows]."""
        return SessionBlock(
            self.model,
            self.ids[chosen],
            self.sessions[chosen],
            self.opens[chosen],
            self.deadlines[chosen],
            self.expected[chosen],
            self.forecasts[chosen],
            self.lengths[chosen],
            self.values[np.repeat(chosen, self.lengths)],
            [start for start, mine in zip(self.starts, chosen.tolist(), strict=True) if mine],
        )

    def refused(self, message: str) -> FailureBlock:
        """The reply of an engine that does not take these rows now."""
        return FailureBlock(self.model, self.ids.tolist(), Unavailable.__name__, message)


@dataclass(frozen=True, slots=True, eq=False)
class SessionResults:
    """Rows that were applied.

    ids: int64 [rows].
    steps: int64 [rows], steps of the session after the row.
    expires_in_s: float64 [rows], after how many idle seconds the session ends.
    forecast_rows: int32 [k], indices of the rows that asked for a forecast, ascending.
    forecasts: float32 [k, horizon, targets, 1 + quantiles], standardised, as the unary answer has it.
    loc, scale: float64 [k, targets], what restores the caller's units.
    starts: [k], time of step 0, "" where unknown.
    report: of the execution that ended these rows.
    """

    model: ModelKey
    ids: npt.NDArray[np.int64]
    steps: npt.NDArray[np.int64]
    expires_in_s: npt.NDArray[np.float64]
    forecast_rows: npt.NDArray[np.int32]
    forecasts: npt.NDArray[np.float32]
    loc: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]
    starts: Sequence[str]
    report: BatchReport

    def rows(self, chosen: npt.NDArray[np.bool_]) -> SessionResults:
        """Some of the rows, with the report as it is. chosen: bool [rows]."""
        kept = chosen[self.forecast_rows]
        # A row stands as many places further ahead as rows before it are left out.
        places = np.cumsum(chosen) - 1
        return SessionResults(
            self.model,
            self.ids[chosen],
            self.steps[chosen],
            self.expires_in_s[chosen],
            places[self.forecast_rows[kept]].astype(np.int32),
            self.forecasts[kept],
            self.loc[kept],
            self.scale[kept],
            [start for start, mine in zip(self.starts, kept.tolist(), strict=True) if mine],
            self.report,
        )


@dataclass(frozen=True, slots=True)
class SessionCall:
    """A rare question about one session.

    verb: `tell` how it stands; `fork` it into a new session `other`; `export` its state; `import` a state in its place,
        which makes the session where there is none; `close` it.
    session, other: 16 bytes.
    blob: the state to import.
    """

    verb: Literal["tell", "fork", "export", "import", "close"]
    model: ModelKey
    session: bytes
    other: bytes = b""
    blob: bytes = b""


@dataclass(frozen=True, slots=True)
class SessionState:
    """The answer to a `SessionCall`: the session as it stands after it (a fork: the new one; a close: as it was).

    blob: what was exported.
    """

    steps: int
    expires_in_s: float
    blob: bytes = b""
