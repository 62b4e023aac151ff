"""Whatever computes the recurrent layers: close to the reference, and each row for itself, bit for bit."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conveyor.engine.executors.candidates import CANDIDATES, REFERENCE, Candidate
from conveyor.engine.planning.exactness import largest_dependence
from conveyor.nn.models import TaskModel, build
from conveyor.nn.scan import RowScan, advance
from conveyor.spec import RecurrentSpec
from support.packages import TAG
from support.threads import one_computing_thread as one_computing_thread

CPU = torch.device("cpu")
CELLS = ("lstm", "gru", "rnn")
# What rounding in another order may cost here, and what half the bits may, or a quarter.
CLOSE = {"float32": 1e-6, "bfloat16": 0.05, "int8": 0.05}


def on_cpu() -> list[object]:
    """Every candidate for CPUs with every cell; those that can't run here are skipped with the reason."""
    params = []
    for candidate in CANDIDATES:
        for cell in CELLS if "cpu" in candidate.devices else ():
            obstacle = candidate.obstacle(CPU, RecurrentSpec(cell=cell, hidden=8))
            skip = [pytest.mark.skip(reason=obstacle)] if obstacle else []
            params.append(pytest.param(candidate, cell, marks=skip, id=f"{candidate}-{cell}"))
    return params


@cache
def network(candidate: Candidate, cell: str, hidden: int = 24) -> TaskModel:
    """A tagger of two layers in both directions, the same weights for every candidate."""
    torch.manual_seed(5)
    recurrent = RecurrentSpec(cell=cell, hidden=hidden, layers=2, bidirectional=True)
    made = build(TAG.model_copy(update={"recurrent": recurrent})).eval().requires_grad_(False)
    candidate.install(made)
    return made


def rows_of(lengths: list[int], seed: int) -> list[np.ndarray]:
    """Seeded rows of the tagger's two columns."""
    chance = np.random.default_rng(seed)
    return [chance.integers(0, 40, size=(length, 2), dtype=np.int32) for length in lengths]


def outputs_of(made: TaskModel, rows: list[np.ndarray], padding: int = 0) -> list[torch.Tensor]:
    """What the recurrent layers put out for each row of a padded batch."""
    steps = max(map(len, rows)) + padding
    ids = torch.zeros(len(rows), steps, 2, dtype=torch.int32)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.from_numpy(row)
    lengths = torch.tensor([len(row) for row in rows])
    with torch.inference_mode():
        outputs, _ = made.recurrent(made.embed(ids), lengths)
    return [outputs[index, : len(row)] for index, row in enumerate(rows)]


@cache
def is_exact(candidate: Candidate, cell: str) -> bool:
    """Whether rows must be equal bit for bit: in float32, but for OpenVINO, which may round by company; what
    is rounded more only where the planner finds it so, for it refuses the candidate elsewhere."""
    if candidate.precision == "float32":
        return candidate.executor != "openvino"
    return largest_dependence(network(candidate, cell), rows_of([40, 17, 9, 9, 2, 1], 0)) == 0.0


def assert_same_row(candidate: Candidate, cell: str, expected: torch.Tensor, actual: torch.Tensor) -> None:
    """Equal, or close where this machine rounds by company."""
    if is_exact(candidate, cell):
        assert torch.equal(expected, actual)
    else:
        torch.testing.assert_close(expected, actual, rtol=0, atol=CLOSE[candidate.precision])


@pytest.mark.parametrize(("candidate", "cell"), on_cpu())
def test_is_close_to_the_reference(candidate: Candidate, cell: str) -> None:
    """The same weights give the same outputs, to the accuracy of the arithmetic."""
    rows = rows_of([30, 12, 12, 5, 1], 1)
    expected = outputs_of(network(REFERENCE, cell), rows)
    for left, right in zip(expected, outputs_of(network(candidate, cell), rows), strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=CLOSE[candidate.precision])


@pytest.mark.parametrize(("candidate", "cell"), on_cpu())
@settings(max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    padding=st.integers(0, 20),
    seed=st.integers(0, 1000),
)
def test_a_row_alone_equals_the_row_in_any_batch(
    candidate: Candidate, cell: str, lengths: list[int], padding: int, seed: int
) -> None:
    """Neither company nor padding changes a bit."""
    rows = rows_of(lengths, seed)
    together = outputs_of(network(candidate, cell), rows, padding)
    for row, expected in zip(rows, together, strict=True):
        (alone,) = outputs_of(network(candidate, cell), [row])
        assert_same_row(candidate, cell, expected, alone)


@pytest.mark.parametrize(("candidate", "cell"), on_cpu())
@settings(max_examples=25)
@given(data=st.data(), lengths=st.lists(st.integers(1, 60), min_size=1, max_size=4), seed=st.integers(0, 1000))
def test_rows_run_in_chunks_equal_rows_run_whole(
    candidate: Candidate, cell: str, data: st.DataObject, lengths: list[int], seed: int
) -> None:
    """Cut anywhere, beside any others that come and go, with the states carried over."""
    made = network(candidate, cell)
    rows = rows_of(lengths, seed)
    scans = [RowScan(made, torch.from_numpy(row)) for row in rows]
    with torch.inference_mode():
        while under_way := [scan for scan in scans if scan.phases]:
            phase = data.draw(st.sampled_from([phase for scan in under_way for phase in scan.phases]))
            group = [scan for scan in under_way if phase in scan.phases]
            some = group[: data.draw(st.integers(1, len(group)))]
            advance(made, some, phase, data.draw(st.integers(8, 40)), len(some))
    for row, scan in zip(rows, scans, strict=True):
        (whole,) = outputs_of(made, [row])
        assert_same_row(candidate, cell, whole, scan.outputs())


@pytest.mark.parametrize(("candidate", "cell"), on_cpu())
def test_large_batches_in_pieces_do_not_show(candidate: Candidate, cell: str) -> None:
    """64 rows of 70 steps, more than a kernel may take at once, equal the same rows two at a time."""
    rows = rows_of([70] * 64, 2)
    together = outputs_of(network(candidate, cell), rows)
    for first in (0, 30, 62):
        for expected, actual in zip(
            together[first : first + 2],
            outputs_of(network(candidate, cell), rows[first : first + 2]),
            strict=True,
        ):
            assert_same_row(candidate, cell, expected, actual)
