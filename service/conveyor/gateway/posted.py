"""A request's rows on their way to the engine and back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from conveyor.domain import ModelKey
from conveyor.errors import ConveyorError
from conveyor.gateway.call import Call
from conveyor.wire.messages import RowBlock, Rows

__all__ = ["Block", "Posted", "RowResult", "row_block"]

RowResult = Mapping[str, npt.NDArray[np.generic]]

# In the place of an answer that has not come.
_NO_RESULT: RowResult = {}


class Block:
    """Requests whose rows were sent together, until none of them waits for any."""

    __slots__ = ("waiting",)

    def __init__(self, waiting: int) -> None:
        self.waiting = waiting


class Posted:
    """A request's rows while they are in the engine, or on their way there, and what became of them.

    results: in the order of the rows, once `is_over` without an `error`.
    error: the first failure among the rows, or `DeadlineExceeded`.
    """

    __slots__ = (
        "awaited",
        "block",
        "call",
        "error",
        "first_id",
        "is_over",
        "model",
        "on_over",
        "remaining",
        "results",
        "rows",
    )

    def __init__(self, call: Call, model: ModelKey, rows: Rows, first_id: int, on_over: Callable[[], None]) -> None:
        count = len(rows.lengths)
        self.call = call
        self.model = model
        self.rows = rows
        self.first_id = first_id
        self.on_over = on_over
        self.results: list[RowResult] = [_NO_RESULT] * count
        self.remaining = count
        self.error: ConveyorError | None = None
        self.is_over = False
        self.block: Block | None = None
        # What a task waits for, if one does.
        self.awaited: asyncio.Future[None] | None = None

    @property
    def is_wanted(self) -> bool:
        """Whether somebody waits for it: a task that was cancelled in this tick has had no turn yet to say so."""
        return not (self.is_over or (self.awaited is not None and self.awaited.cancelled()))

    @property
    def ids(self) -> range:
        """Those of its rows."""
        return range(self.first_id, self.first_id + len(self.results))


def row_block(model: ModelKey, requests: Sequence[Posted]) -> RowBlock:
    """The rows of some requests."""
    ids: list[int] = []
    deadlines: list[float] = []
    priorities: list[int] = []
    numbers: list[int] = []
    lengths: list[int] = []
    for posted in requests:
        count = len(posted.results)
        ids += posted.ids
        deadlines += [posted.call.deadline] * count
        priorities += [posted.call.priority] * count
        numbers += [posted.first_id] * count
        lengths += posted.rows.lengths
    parts = [posted.rows.inputs for posted in requests]
    inputs = np.concatenate(parts) if len(parts) > 1 else parts[0]
    return RowBlock(model, ids, deadlines, priorities, numbers, lengths, inputs)
