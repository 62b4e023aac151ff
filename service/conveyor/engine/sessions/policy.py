"""Which steps of which sessions run next, together. Pure: no torch, no clock."""

from __future__ import annotations

from collections.abc import Sequence

from conveyor.engine.batching.costs import CostTable
from conveyor.engine.batching.policy import chunk_steps
from conveyor.engine.batching.shapes import ROW_BUCKETS, STEP_BUCKETS, bucket

__all__ = ["choose_chunk", "rows_computed"]

# Of a power of two: rows are rounded up to so many sizes between one and the next, which wastes an eighth at most.
_SIZES = 8


def rows_computed(rows: int) -> int:
    """The number of rows to compute for some sessions: out of few, since each shape costs the library a set-up."""
    if rows <= ROW_BUCKETS[-1]:
        return bucket(rows)
    grid = (1 << ((rows - 1).bit_length() - 1)) // _SIZES
    return -(-rows // grid) * grid


def choose_chunk(remaining: Sequence[int], fitting: int, costs: CostTable, slice_s: float) -> tuple[int, Sequence[int]]:
    """How many steps which of the long appends go on by.

    As many steps as the first of them can take within a slice, and every other that has as many left: so no step is
    computed that nobody asked for.

    Args:
        remaining: Steps left of each, the one whose turn it is first; one at least each.
        fitting: Steps that there is memory for.

    Returns:
        The steps, and the positions of those that go on.
    """
    most = chunk_steps(rows_computed(len(remaining)), 1, remaining[0], fitting, costs, slice_s)
    steps = max(size for size in STEP_BUCKETS if size <= min(most, remaining[0]))
    return steps, [position for position, left in enumerate(remaining) if left >= steps]
