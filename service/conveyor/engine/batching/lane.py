"""Long rows, run a chunk at a time beside everything else. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from conveyor.engine.batching.backlog import Row

__all__ = ["Lane", "LaneRow", "Scan"]


class Scan(Protocol):
    """A row on a device that can be run on from where it stands.

    A phase is one direction of one layer. Both directions of a layer may go on in any order; a layer begins when the
    one below is through.
    """

    @property
    def num_phases(self) -> int:
        """How many phases there are in all."""

    @property
    def phases(self) -> Sequence[int]:
        """The phases that can go on now; none when the row is done."""

    def remaining_steps(self, phase: int) -> int:
        """Steps left in a phase that can go on."""


ScanT = TypeVar("ScanT", bound=Scan)


@dataclass(slots=True, eq=False)
class LaneRow(Generic[ScanT]):
    """A row that was begun.

    started: monotonic seconds.
    compute_s, padding: device time, and steps computed for nobody, so far.
    """

    row: Row
    scan: ScanT
    started: float
    compute_s: float = 0.0
    padding: float = 0.0


class Lane(Generic[ScanT]):
    """The rows of one model that were begun and are not done."""

    def __init__(self) -> None:
        self._rows: dict[int, LaneRow[ScanT]] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[LaneRow[ScanT]]:
        return iter(self._rows.values())

    def __contains__(self, row: LaneRow[ScanT]) -> bool:
        return self._rows.get(row.row.id) is row

    def begin(self, row: LaneRow[ScanT]) -> None:
        """Adds a row."""
        self._rows[row.row.id] = row

    def remove(self, ids: Collection[int]) -> None:
        """Drops rows; ids that are not inside are ignored."""
        for row_id in ids:
            self._rows.pop(row_id, None)

    def group(self) -> tuple[int, Sequence[LaneRow[ScanT]]]:
        """What to advance next: a phase that the most urgent row can go on with, and all rows that can too, the most
        urgent first. No row may be done."""
        rows = sorted(self._rows.values(), key=lambda begun: (begun.row.due, begun.row.id))
        groups = {phase: [begun for begun in rows if phase in begun.scan.phases] for phase in rows[0].scan.phases}
        phase = max(groups, key=lambda phase: (len(groups[phase]), -phase))
        return phase, groups[phase]

    def done(self) -> Sequence[LaneRow[ScanT]]:
        """The rows that have come to their end."""
        return [begun for begun in self._rows.values() if not begun.scan.phases]

    def expired(self, now: float) -> Sequence[int]:
        """The rows whose deadline has passed."""
        return [begun.row.id for begun in self._rows.values() if begun.row.deadline <= now]
