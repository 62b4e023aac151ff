"""Rows into a padded batch, and a batch's results into rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from conveyor.domain import ModelKey
from conveyor.engine.batching.backlog import Row
from conveyor.engine.batching.policy import Plan
from conveyor.engine.batching.shapes import Stair, bucket
from conveyor.engine.executors.port import Batch, BatchResult
from conveyor.errors import Internal
from conveyor.wire.messages import BatchReport, FailureBlock, ResultBlock
from conveyor.wire.port import Reply

__all__ = ["answer", "assemble"]


def assemble(plan: Plan) -> Batch:
    """Pads rows to the shape of the plan: zeros past each row's end, and filler rows of length zero."""
    rows: Sequence[Row] = plan.rows
    stairs: Sequence[Stair] = plan.stairs or [Stair(bucket(len(rows)), 1)]
    if stairs[0].rows < len(rows):
        # Rows without steps need no stair, but they are answered.
        stairs = [Stair(bucket(len(rows)), stairs[0].steps), *stairs[1:]]
    lengths = np.zeros(stairs[0].rows, dtype=np.int32)
    lengths[: len(rows)] = plan.lengths
    first = rows[0].inputs
    inputs = np.zeros((len(lengths), sum(stair.steps for stair in stairs), first.shape[1]), dtype=first.dtype)
    for padded, row in zip(inputs, rows, strict=False):
        padded[: row.length] = row.inputs
    return Batch(inputs, lengths, stairs)


def answer(
    model: ModelKey,
    rows: Sequence[Row],
    lengths: np.ndarray,
    result: BatchResult,
    queue_s: np.ndarray,
    compute_s: float,
    padding_steps: int,
    *,
    in_chunks: bool,
) -> list[Reply]:
    """The answers of rows that were computed together; one whose result is not finite fails alone.

    Args:
        lengths: int32 [rows].
        queue_s: float64 [rows], how long each waited.
        padding_steps: Steps computed that no row asked for.
        in_chunks: Whether it was one long row.
    """
    count = len(rows)
    useful = int(lengths.sum())
    ids = np.array([row.id for row in rows], dtype=np.int64)
    arrays = {name: array[:count] for name, array in result.arrays.items()}
    finite = _finite_rows(arrays, result.stepwise, lengths)
    failed: list[Reply] = []
    if finite is not None:
        message = "the model gave a result that is not finite"
        failed = [FailureBlock(model, ids[~finite].tolist(), Internal.__name__, message)]
        ids, queue_s, lengths = ids[finite], queue_s[finite], lengths[finite]
        arrays = {name: array[finite] for name, array in arrays.items()}
    if result.stepwise:
        # The rows one after another, without padding.
        arrays = {name: array[np.arange(array.shape[1]) < lengths[:, None]] for name, array in arrays.items()}
    report = BatchReport(model, queue_s, compute_s, count, in_chunks, useful, padding_steps)
    return [ResultBlock(ids, lengths, result.stepwise, arrays, report), *failed]


def _finite_rows(
    arrays: Mapping[str, npt.NDArray[np.generic]], stepwise: bool, lengths: npt.NDArray[np.int32]
) -> npt.NDArray[np.bool_] | None:
    """Which rows came out free of NaN and infinity, bool [rows]; None if all did. Steps past a row's end do not
    count."""
    count = len(lengths)
    every = [np.isfinite(array.astype(np.float32, copy=False)) for array in arrays.values()]
    if all(good.all() for good in every):
        return None
    finite: npt.NDArray[np.bool_] = np.ones(count, dtype=np.bool_)
    for good in every:
        if stepwise:
            past_end = np.arange(good.shape[1]) >= lengths[:, None]
            finite &= (good.reshape(*past_end.shape, -1).all(axis=-1) | past_end).all(axis=1)
        else:
            finite &= good.reshape(count, -1).all(axis=1)
    return None if finite.all() else finite
