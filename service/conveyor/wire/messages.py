"""The messages that cross the engine seam. Lists, arrays and strings: each can be written to a socket as it is.

The unit is a block: everything one front end has for one model in one tick of its event loop. Ids are chosen by
the front end and are unique within it. Times are seconds of the machine-wide monotonic clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from conveyor.domain import ModelKey
from conveyor.errors import Unavailable

__all__ = [
    "NORMAL_PRIORITY",
    "NO_DEADLINE",
    "PATIENCE_S",
    "PRIORITIES",
    "BatchReport",
    "FailureBlock",
    "Inputs",
    "ResultBlock",
    "RowBlock",
    "Rows",
]

# Token ids are int32, numbers float32; a model takes one of the two.
Inputs = npt.NDArray[np.int32 | np.float32]

NO_DEADLINE = float("inf")

# What a caller may say of a request: 0 before all others, 1 as everybody, 2 when there is time.
PRIORITIES = (0, 1, 2)
NORMAL_PRIORITY = 1

# Seconds that a row of each priority may wait before it comes before everything that is due later.
PATIENCE_S = {0: 0.05, 1: 1.0, 2: 10.0}


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Rows of one request, before they are a part of a block.

    lengths: steps of each; zero is valid.
    inputs: int32 or float32 [sum(lengths), width], the rows one after another.
    """

    lengths: list[int]
    inputs: Inputs

    @classmethod
    def of(cls, parts: Sequence[Inputs]) -> Self:
        """One row or more. parts: [steps, width] each."""
        return cls(list(map(len, parts)), np.concatenate(parts))

    def split(self, counts: Sequence[int]) -> list[Rows]:
        """Their parts of so many rows each, which share the memory of the inputs."""
        parts = []
        row = step = 0
        for count in counts:
            lengths = self.lengths[row : row + count]
            end = step + sum(lengths)
            parts.append(Rows(lengths, self.inputs[step:end]))
            row, step = row + count, end
        return parts


@dataclass(frozen=True, slots=True, eq=False)
class RowBlock:
    """Rows to compute. What is read row by row at both ends is in lists: most blocks are of few rows, for which an
    array takes longer to make, to send and to read.

    ids, requests: below 2⁶³; requests are equal for the rows of one request.
    deadlines: monotonic seconds, `NO_DEADLINE` where there is none.
    priorities: of `PRIORITIES`.
    lengths, inputs: as in `Rows`.
    """

    model: ModelKey
    ids: list[int]
    deadlines: list[float]
    priorities: list[int]
    requests: list[int]
    lengths: list[int]
    inputs: Inputs

    def refused(self, message: str) -> FailureBlock:
        """The reply of an engine that does not take these rows now."""
        return FailureBlock(self.model, self.ids, Unavailable.__name__, message)

    def rows(self, first: int, last: int) -> RowBlock:
        """The rows from `first` to before `last`, as a block that shares the memory of their inputs."""
        chosen = slice(first, last)
        lengths = self.lengths[chosen]
        start = sum(self.lengths[:first])
        return RowBlock(
            self.model,
            self.ids[chosen],
            self.deadlines[chosen],
            self.priorities[chosen],
            self.requests[chosen],
            lengths,
            self.inputs[start : start + sum(lengths)],
        )


@dataclass(frozen=True, slots=True, eq=False)
class BatchReport:
    """What one execution cost, sent with its results so that metrics live at one scrape point.

    queue_s: float64 [rows answered], from arrival in the engine to the start of the execution.
    compute_s: duration of the execution, transfers included.
    in_chunks: whether it was one long row, run in chunks beside others; `compute_s` is then its share.
    useful_steps, padding_steps: steps computed that a row asked for, and that none did.
    rows_elsewhere: rows that the engine has from other front ends.
    """

    model: ModelKey
    queue_s: npt.NDArray[np.float64]
    compute_s: float
    rows: int
    in_chunks: bool
    useful_steps: int
    padding_steps: int
    rows_elsewhere: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class ResultBlock:
    """Answers.

    ids: int64 [rows].
    lengths: int32 [rows], entries of each row in the arrays of a stepwise result.
    arrays: by name, the rows one after another: [sum(lengths), …] if `stepwise`, else [rows, …].
    """

    ids: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int32]
    stepwise: bool
    arrays: Mapping[str, npt.NDArray[np.generic]]
    report: BatchReport

    def rows(self, chosen: npt.NDArray[np.bool_]) -> ResultBlock:
        """Some of the rows, with the report as it is. chosen: bool [rows]."""
        entries = np.repeat(chosen, self.lengths) if self.stepwise else chosen
        arrays = {name: array[entries] for name, array in self.arrays.items()}
        return ResultBlock(self.ids[chosen], self.lengths[chosen], self.stepwise, arrays, self.report)


@dataclass(frozen=True, slots=True, eq=False)
class FailureBlock:
    """Rows that end without an answer, all for one reason: the name of a class in `errors` and its message."""

    model: ModelKey
    ids: Sequence[int]
    error: str
    message: str
