"""Which shapes a batch is executed in. Pure.

A batch is a staircase: its rows stand in descending order of length, and its steps are cut where rows end, so that a
row that has ended is not computed further. Each stair is one call of a shape out of few, and the state is carried from
one to the next. Every new shape would cost the library a set-up and memory, so rows and steps come from buckets.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from conveyor.engine.batching.costs import CostTable

__all__ = ["MOST_STEPS", "ROW_BUCKETS", "STEP_BUCKETS", "Stair", "bucket", "staircase"]

# A batch of one is computed by other kernels than a batch of many and differs in the last bits; two do not.
ROW_BUCKETS = (2, 4, 6, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128)
STEP_BUCKETS = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
MOST_STEPS = STEP_BUCKETS[-1]
# Positions considered for a cut: the grid grows with the batch so that planning stays well under a millisecond.
_FINEST_POSITIONS = 96


@dataclass(frozen=True, slots=True)
class Stair:
    """One call: the first `rows` rows of the batch (fillers included), for the next `steps` steps."""

    rows: int
    steps: int


def bucket(rows: int) -> int:
    """The number of rows to compute for `rows` rows."""
    if rows > ROW_BUCKETS[-1]:
        return -(-rows // ROW_BUCKETS[-1]) * ROW_BUCKETS[-1]
    return ROW_BUCKETS[bisect_left(ROW_BUCKETS, rows)]


def staircase(lengths: Sequence[int], costs: CostTable) -> tuple[Stair, ...]:
    """The cheapest way to run rows of these lengths, by dynamic programming over where to cut.

    Args:
        lengths: Descending.

    Returns:
        Stairs whose steps sum to at least the longest row; rows never grow from one to the next. Rows that end inside
        a stair are computed to its end. None for rows without steps.
    """
    longest = lengths[0] if lengths else 0
    if longest == 0:
        return ()
    grid = 1
    while longest / grid > _FINEST_POSITIONS:
        grid *= 2
    positions = -(-longest // grid)
    sizes = [size for size in STEP_BUCKETS if size % grid == 0] or [grid]
    step_s = _step_costs(lengths, costs, positions, grid)
    # cheapest[p]: the least seconds to finish from position p on, and the steps of the first call of that plan.
    cheapest: list[tuple[float, int]] = [(0.0, 0)] * (positions + 1)
    for position in range(positions - 1, -1, -1):
        per_step = step_s[position]
        best, best_size = float("inf"), 0
        for size in sizes:
            end = min(position + size // grid, positions)
            seconds = costs.cut_s * costs.factor + per_step * size + cheapest[end][0]
            if seconds <= best:
                best, best_size = seconds, size
            if end == positions:
                break
        cheapest[position] = (best, best_size)
    stairs = []
    position = 0
    active = len(lengths)
    while position < positions:
        while active and lengths[active - 1] <= position * grid:
            active -= 1
        size = cheapest[position][1]
        stairs.append(Stair(bucket(active), size))
        position += size // grid
    return tuple(stairs)


def _step_costs(lengths: Sequence[int], costs: CostTable, positions: int, grid: int) -> list[float]:
    """Seconds of a step at each position, given how many rows go on there."""
    known: dict[int, float] = {}
    found = []
    active = len(lengths)
    for position in range(positions):
        while active and lengths[active - 1] <= position * grid:
            active -= 1
        rows = bucket(active)
        if rows not in known:
            known[rows] = costs.step_s(rows)
        found.append(known[rows])
    return found
