"""Rows into the batches that a plan is tried on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from conveyor.engine.batching.shapes import Stair
from conveyor.engine.executors.port import Batch
from conveyor.wire.messages import Inputs

__all__ = ["batches_of"]

_MOST_ROWS = 64
_MOST_STEPS = 65_536


def batches_of(rows: Sequence[Inputs]) -> Iterator[tuple[list[int], Batch]]:
    """All rows in batches of similar lengths, each one call, with the indices of their rows."""
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]), reverse=True)
    first = 0
    while first < len(order):
        steps = max(len(rows[order[first]]), 1)
        chosen = order[first : first + max(1, min(_MOST_ROWS, _MOST_STEPS // steps))]
        yield chosen, _pad([rows[index] for index in chosen], steps)
        first += len(chosen)


def _pad(rows: Sequence[Inputs], steps: int) -> Batch:
    inputs = np.zeros((len(rows), steps, rows[0].shape[1]), dtype=rows[0].dtype)
    for index, row in enumerate(rows):
        inputs[index, : len(row)] = row
    lengths = np.array([len(row) for row in rows], dtype=np.int32)
    return Batch(inputs, lengths, [Stair(len(rows), steps)])
