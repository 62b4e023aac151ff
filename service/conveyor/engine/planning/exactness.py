"""Whether a row comes out alike, bit for bit, alone, in company, and cut anywhere."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from conveyor.engine.batching.shapes import Stair
from conveyor.engine.planning.batches import batches_of
from conveyor.nn.models import TaskModel
from conveyor.nn.scan import RowScan, advance
from conveyor.wire.messages import Inputs

__all__ = ["largest_dependence"]

_ROWS = 24
_STEPS = 160
_IN_CHUNKS = 3
_CHUNKS = (1, 7, 16, 64)


def largest_dependence(network: TaskModel, rows: Sequence[Inputs], seed: int = 0) -> float:
    """The largest difference that company or cuts make in what the recurrent layers put out; 0.0 if they make none.

    Args:
        rows: Some of them are tried, the shortest and the longest among them, and no more than their first steps.
    """
    device = next(network.parameters()).device
    whole_rows = _choose([row for row in rows if len(row)], seed)
    largest = 0.0
    with torch.inference_mode():
        for indices, batch in batches_of(whole_rows):
            ids = torch.from_numpy(batch.inputs).to(device)
            x, lengths = network.embed(ids), torch.from_numpy(batch.lengths).to(device, torch.int64)
            whole, _ = network.recurrent(x, lengths)
            cut, _ = network.recurrent(x, lengths, _stairs(batch.lengths.tolist()))
            in_chunks = _run_in_chunks(network, [ids[i, : lengths[i]] for i in range(min(_IN_CHUNKS, len(indices)))])
            for place, length in enumerate(batch.lengths.tolist()):
                row = slice(place, place + 1)
                alone, _ = network.recurrent(x[row, :length], lengths[row])
                some, _ = network.recurrent(x[place:][:3], lengths[place:][:3])
                others = [alone[0], some[0, :length], cut[place, :length], *in_chunks[place : place + 1]]
                largest = max(largest, *(_apart(whole[place, :length], other) for other in others))
    return largest


def _choose(rows: Sequence[Inputs], seed: int) -> list[Inputs]:
    chance = np.random.default_rng(seed)
    ends = [min(rows, key=len), max(rows, key=len)]
    chosen = ends + [rows[index] for index in chance.integers(len(rows), size=_ROWS - len(ends))]
    return [row[:_STEPS] for row in chosen]


def _stairs(lengths: Sequence[int]) -> list[Stair]:
    """A cut wherever a row ends. lengths: descending."""
    stairs = []
    first = 0
    for rows in range(len(lengths), 0, -1):
        if lengths[rows - 1] > first:
            stairs.append(Stair(rows, lengths[rows - 1] - first))
            first = lengths[rows - 1]
    return stairs


def _run_in_chunks(network: TaskModel, rows: Sequence[Tensor]) -> list[Tensor]:
    """What the layers put out for rows that are advanced side by side: [steps, output_size] each."""
    scans = [RowScan(network, row) for row in rows]
    turn = 0
    while under_way := [scan for scan in scans if scan.phases]:
        phase = min(scan.phases[0] for scan in under_way)
        group = [scan for scan in under_way if phase in scan.phases]
        advance(network, group, phase, _CHUNKS[turn % len(_CHUNKS)], len(group))
        turn += 1
    return [scan.outputs() for scan in scans]


def _apart(left: Tensor, right: Tensor) -> float:
    return 0.0 if torch.equal(left, right) else float((left - right).abs().max())
