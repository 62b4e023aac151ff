"""Measuring what a model costs, when it is loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from conveyor.domain import ModelKey
from conveyor.engine.batching.costs import CostTable
from conveyor.engine.batching.shapes import Stair
from conveyor.engine.executors.port import Batch, Executor

__all__ = ["measure_costs"]

# Few points, since the cost is close to a straight line between them: a large model is measured in under a second.
_ROWS = (2, 16, 64)
# Where a lone row is computed alone.
_RAGGED_ROWS = (1, 8, 64)
_STEPS = (8, 32, 128)
_REPEATS = 3
# The cost of a cut is a small difference of two times: one cut alone drowns in their noise.
_PIECES = 8
# Of the smallest execution.
_LEAST_CUT = 0.05


def measure_costs(executor: Executor[Any], key: ModelKey, clock: Callable[[], float]) -> CostTable:
    """Runs a model over a grid of shapes; the least of some repeats counts, since all else is disturbance."""

    def seconds(rows: int, stairs: Sequence[Stair]) -> float:
        steps = sum(stair.steps for stair in stairs)
        batch = Batch(executor.blank(key, rows, steps), np.full(rows, steps, dtype=np.int32), stairs)
        found = []
        for _ in range(_REPEATS):
            started = clock()
            executor.run(key, batch)
            found.append(clock() - started)
        return min(found)

    ragged = executor.is_ragged(key)
    points = _RAGGED_ROWS if ragged else _ROWS
    table = [[seconds(rows, [Stair(rows, steps)]) for steps in _STEPS] for rows in points]
    rows, steps = points[0], _STEPS[1]
    in_pieces = seconds(rows, [Stair(rows, steps // _PIECES)] * _PIECES)
    measured_s = (in_pieces - table[0][1]) / (_PIECES - 1)
    # A call is never free, whatever a disturbed measurement says: free cuts would be made at every step.
    return CostTable(points, _STEPS, table, cut_s=max(measured_s, _LEAST_CUT * table[0][0]), ragged=ragged)
