"""What an execution costs: measured seconds over rows × steps, corrected while running. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["CostTable", "uniform_costs"]

# Weight of one execution in the running correction: a machine that became slower shows after some tens of them.
_LEARNING_RATE = 0.05
# One execution interrupted by something else says nothing about the next.
_LARGEST_RATIO = 4.0
# Executions shorter than this say what is added to each, longer ones how fast the machine computes.
_SHORT_S = 0.005


@dataclass
class CostTable:
    """Seconds of one execution of a rectangle; between the measured points, and beyond them, on straight lines.

    rows, steps: the measured points, ascending; two of each at least.
    measured_s: `measured_s[i][j]` for `rows[i]` and `steps[j]`.
    cut_s: what it costs more to run the steps in two calls instead of one.
    factor: how much slower than measured this machine computes now.
    ragged: whether each row is computed to its own end only: then steps are the mean over the rows.
    overhead_s: what is added to every execution now, by waiting for an interpreter that is busy elsewhere. Counted
        apart, because taken for a factor it would make a long queue look dearer than it is.
    """

    rows: Sequence[int]
    steps: Sequence[int]
    measured_s: Sequence[Sequence[float]]
    cut_s: float
    factor: float = field(default=1.0)
    overhead_s: float = field(default=0.0)
    ragged: bool = field(default=False)

    def __post_init__(self) -> None:
        # The policy asks for few sizes of batches and many lengths. What is measured does not change.
        self._lines: dict[int, tuple[Sequence[float], float]] = {}

    def estimate_s(self, rows: int, steps: float) -> float:
        """Seconds of `rows` rows of `steps` steps each; never negative."""
        line, _ = self._lines.get(rows) or self._line(rows)
        points = self.steps
        # As `_place`, which would double what is asked once for every row that waits.
        j = bisect_right(points, steps, 1, len(points) - 1)
        left, first = line[j - 1], points[j - 1]
        seconds = (left + (steps - first) / (points[j] - first) * (line[j] - left)) * self.factor
        return max(seconds, 0.0) + self.overhead_s

    def step_s(self, rows: int) -> float:
        """Seconds that one more step of `rows` rows adds."""
        return self.measured_step_s(rows) * self.factor

    def measured_step_s(self, rows: int) -> float:
        """The same by the table as it was measured."""
        _, slope = self._lines.get(rows) or self._line(rows)
        return slope

    def _line(self, rows: int) -> tuple[Sequence[float], float]:
        """Seconds of so many rows at each of the measured steps, and of one more step; not negative."""
        i, down = _place(self.rows, rows)
        line = [upper + down * (lower - upper) for upper, lower in zip(*self.measured_s[i : i + 2], strict=True)]
        slope = max((line[-1] - line[0]) / (self.steps[-1] - self.steps[0]), 0.0)
        self._lines[rows] = line, slope
        return line, slope

    @property
    def row_step_s(self) -> float:
        """Seconds of one step of one row in a full batch: the price of work when there is much of it."""
        return self.step_s(self.rows[-1]) / self.rows[-1]

    def observe(self, estimated_s: float, actual_s: float) -> None:
        """Corrects the table by one execution: what was expected of it and what it took."""
        computed_s = estimated_s - self.overhead_s
        if computed_s <= _SHORT_S:
            self.overhead_s = max(self.overhead_s + _LEARNING_RATE * (actual_s - estimated_s), 0.0)
            return
        ratio = (actual_s - self.overhead_s) / computed_s
        ratio = min(max(ratio, 1 / _LARGEST_RATIO), _LARGEST_RATIO)
        self.factor *= 1 + _LEARNING_RATE * (ratio - 1)

    def relax(self) -> None:
        """Leans back towards what was measured at load: called when an estimate kept an execution from happening,
        which could otherwise never be found wrong."""
        self.factor += _LEARNING_RATE * (1 - self.factor) if self.factor > 1 else 0.0
        self.overhead_s *= 1 - _LEARNING_RATE

    def seconds(self) -> Sequence[Sequence[float]]:
        """The table as it stands now."""
        return [[value * self.factor + self.overhead_s for value in line] for line in self.measured_s]


def uniform_costs(row_step_s: float, call_s: float) -> CostTable:
    """A table in which every step of every row costs the same: for simulations and before anything was measured."""
    rows, steps = (2, 64), (8, 64)
    return CostTable(rows, steps, [[call_s + row_step_s * n * t for t in steps] for n in rows], cut_s=call_s)


def _place(points: Sequence[int], value: float) -> tuple[int, float]:
    """The interval whose line gives the value, and where on it the value lies (outside 0 to 1 beyond the ends)."""
    index = bisect_right(points, value, 1, len(points) - 1) - 1
    return index, (value - points[index]) / (points[index + 1] - points[index])
