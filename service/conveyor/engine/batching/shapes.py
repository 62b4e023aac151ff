"""Which shapes a batch is executed in. Pure.

A batch is a staircase: its rows stand in descending order of length, and its steps are cut where rows end, so that a
row that has ended is not computed further. Each stair is one call of a shape out of few, and the state is carried from
one to the next. Every new shape would cost the library a set-up and memory, so rows and steps come from buckets.

None of that is needed where rows are ragged: a kernel that computes each row to its own end takes a batch as it is.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from conveyor.engine.batching.costs import CostTable

__all__ = [
    "MOST_STEPS",
    "ROW_BUCKETS",
    "STEP_BUCKETS",
    "Stair",
    "bucket",
    "computed_rows",
    "computed_steps",
    "most_steps",
    "staircase",
]

# A batch of one is computed by other kernels than a batch of many and differs in the last bits; two do not.
ROW_BUCKETS = (2, 4, 6, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128)
STEP_BUCKETS = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
MOST_STEPS = STEP_BUCKETS[-1]
# Batches of few rows, and of like rows, come again and again: their staircases are found once.
_REMEMBERED = 4096
# Positions considered for a cut: the grid grows with the batch so that planning stays well under a millisecond.
_FINEST_POSITIONS = 96


class Stair(NamedTuple):
    """One call: the first `rows` rows of the batch (fillers included), for the next `steps` steps."""

    rows: int
    steps: int


def bucket(rows: int) -> int:
    """The number of rows to compute for `rows` rows."""
    if rows > ROW_BUCKETS[-1]:
        return -(-rows // ROW_BUCKETS[-1]) * ROW_BUCKETS[-1]
    return ROW_BUCKETS[bisect_left(ROW_BUCKETS, rows)]


def computed_rows(rows: int, costs: CostTable) -> int:
    """The number of rows to compute for `rows` rows of a model: ragged ones need no rounding."""
    return rows if costs.ragged else bucket(rows)


def computed_steps(stairs: Sequence[Stair]) -> int:
    """Rows × steps of all calls."""
    return sum(stair.rows * stair.steps for stair in stairs)


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
    grid = _grid(longest)
    runs = _runs(lengths, grid)
    # By the table as it was measured: that the machine is slower now makes steps and cuts dearer alike.
    return _cheapest(runs, tuple(costs.measured_step_s(rows) for rows, _ in runs), costs.cut_s, grid)


@lru_cache(maxsize=_REMEMBERED)
def most_steps(longest: int) -> int:
    """No staircase has more steps than this, when its longest row has so many."""
    if longest == 0:
        return 1
    grid = _grid(longest)
    needed = -(-longest // grid) * grid
    sizes = [0, *_sizes(grid)]
    # The last call may be for one position more than a size has, and so take the next larger size.
    beyond = [larger - size - grid for size, larger in itertools.pairwise(sizes) if size + grid <= needed]
    return needed + max(beyond)


def _grid(longest: int) -> int:
    """Steps from one position to the next."""
    grid = 1
    while longest / grid > _FINEST_POSITIONS:
        grid *= 2
    return grid


def _sizes(grid: int) -> Sequence[int]:
    """The steps that a call may have."""
    return [size for size in STEP_BUCKETS if size % grid == 0] or [grid]


def _runs(lengths: Sequence[int], grid: int) -> tuple[tuple[int, int], ...]:
    """The rows to compute (those that have not ended, rounded up), and at how many positions in a row."""
    found: list[tuple[int, int]] = []
    position, rows = 0, bucket(len(lengths))
    for smaller in reversed(_buckets_below(len(lengths))):
        # More than `smaller` rows go on up to where this one ends.
        end = -(-lengths[smaller] // grid)
        if end > position:
            found.append((rows, end - position))
            position = end
        rows = smaller
    end = -(-lengths[0] // grid)
    if end > position:
        found.append((rows, end - position))
    return tuple(found)


@lru_cache(maxsize=64)
def _buckets_below(rows: int) -> Sequence[int]:
    large = range(2 * ROW_BUCKETS[-1], rows, ROW_BUCKETS[-1])
    return [*(size for size in ROW_BUCKETS if size < rows), *large]


@lru_cache(maxsize=_REMEMBERED)
def _cheapest(
    runs: tuple[tuple[int, int], ...], run_step_s: tuple[float, ...], cut_s: float, grid: int
) -> tuple[Stair, ...]:
    """Dynamic programming over where to cut.

    Args:
        run_step_s: What a step costs in each run.
        grid: Steps from one position to the next.
    """
    rows = [count for count, positions in runs for _ in range(positions)]
    step_s = [seconds for (_, positions), seconds in zip(runs, run_step_s, strict=True) for _ in range(positions)]
    last = len(rows)
    # With how many positions each size spans.
    sizes = [(size, size // grid) for size in _sizes(grid)]
    # cheapest[p]: the least seconds to finish from position p on; first[p]: the first call of that plan.
    cheapest = [0.0] * (last + 1)
    first = [sizes[0]] * last
    for position in range(last - 1, -1, -1):
        per_step = step_s[position]
        best, best_size = math.inf, sizes[0]
        for size in sizes:
            end = min(position + size[1], last)
            seconds = per_step * size[0] + cheapest[end]
            if seconds <= best:
                best, best_size = seconds, size
            if end == last:
                break
        cheapest[position] = cut_s + best
        first[position] = best_size
    stairs = []
    position = 0
    while position < last:
        steps, span = first[position]
        stairs.append(Stair(rows[position], steps))
        position += span
    return tuple(stairs)
