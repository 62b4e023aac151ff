"""Batches of rows of similar length, drawn anew each epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["draw_batches", "hide_tokens", "pad"]

ScalarT = TypeVar("ScalarT", bound=np.generic)

_POOL_BATCHES = 50  # rows are sorted within pools of about this many batches: little padding, batches still differ


def draw_batches(
    lengths: npt.NDArray[np.int64], *, padded_steps: int, rows: int, rng: np.random.Generator
) -> list[npt.NDArray[np.int64]]:
    """Splits all rows into batches of similar length, in random order.

    Args:
        lengths: int64 [examples], steps of each row.
        padded_steps: Most steps of a batch, rows times the longest row. A longer row is a batch of its own.
        rows: Most rows of a batch.
        rng: Draws the pools and the order of the batches; the same state gives the same batches.

    Returns:
        The row numbers of each batch; every row is in exactly one.
    """
    order = rng.permutation(len(lengths))
    mean = max(1.0, float(lengths.mean())) if len(lengths) else 1.0
    pool = _POOL_BATCHES * max(1, min(rows, int(padded_steps / mean)))
    batches: list[npt.NDArray[np.int64]] = []
    for first in range(0, len(order), pool):
        members = order[first : first + pool]
        ascending = members[np.argsort(lengths[members], kind="stable")]
        begin = 0
        for end in range(1, len(ascending) + 1):
            is_last = end == len(ascending)
            # ascending: a batch's longest row is its last, so adding the next one sets the width
            if is_last or end - begin >= rows or (end + 1 - begin) * lengths[ascending[end]] > padded_steps:
                batches.append(ascending[begin:end])
                begin = end
    return [batches[index] for index in rng.permutation(len(batches))]


def pad(rows: Sequence[npt.NDArray[ScalarT]]) -> npt.NDArray[ScalarT]:
    """Stacks rows [steps, …] of unequal length into [rows, longest, …], zero after each end."""
    steps = max((len(row) for row in rows), default=0)
    out = np.zeros((len(rows), steps, *rows[0].shape[1:]), dtype=rows[0].dtype)
    for target, row in zip(out, rows, strict=True):
        target[: len(row)] = row
    return out


def hide_tokens(
    ids: npt.NDArray[np.int32], share: float, unknown: int, rng: np.random.Generator
) -> npt.NDArray[np.int32]:
    """Makes a share of tokens unknown in all their columns; padding stays. ids: int32 [rows, steps, columns]."""
    if share == 0.0:
        return ids
    hidden = rng.random(ids.shape[:2]) < share
    return np.where(hidden[..., None] & (ids != 0), np.int32(unknown), ids)
