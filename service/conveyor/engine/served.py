"""A model that the engine serves: what it costs, and where its rows wait."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from conveyor.domain import ModelKey
from conveyor.engine.batching.backlog import Row
from conveyor.engine.batching.costs import CostTable
from conveyor.engine.batching.shapes import computed_rows
from conveyor.engine.outbox import Outbox
from conveyor.errors import DeadlineExceeded

__all__ = ["Line", "Served"]


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """Where a row waits: its model, and whether it is so long that it is run in chunks. Each is equal to itself only,
    since it is looked up for every row."""

    model: ModelKey
    in_chunks: bool


@dataclass(slots=True)
class Served:
    """A model that is loaded.

    longest_whole: rows longer than this are run in chunks.
    whole, chunks: where its rows wait.
    lane_owed_s: device time that the rows in chunks have coming while others run.
    """

    model: ModelKey
    costs: CostTable
    longest_whole: int
    lane_owed_s: float = 0.0
    whole: Line = field(init=False)
    chunks: Line = field(init=False)

    def __post_init__(self) -> None:
        self.whole, self.chunks = Line(self.model, False), Line(self.model, True)

    def is_late(self, row: Row, now: float) -> bool:
        """Whether a row could not be in time even if it ran alone, now."""
        return row.deadline < now + self.costs.estimate_s(computed_rows(1, self.costs), row.length)

    def fail_late(self, rows: Sequence[Row], outbox: Outbox) -> None:
        """Tells rows that the table says they would be late."""
        if rows:
            self.costs.relax()
            message = "the answer would have come after the deadline"
            outbox.fail(self.model, [row.id for row in rows], DeadlineExceeded, message)
