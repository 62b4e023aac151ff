"""Embeddings from text alone: what stands near what, before any label is seen.

Positive pointwise mutual information of words with the words around them, brought to few dimensions by a singular
value decomposition (Levy, Goldberg & Dagan 2015, "Improving distributional similarity with lessons learned from word
embeddings"): contexts smoothed by the power 0.75, the square root of the singular values kept. A decomposition by
random projection (Halko, Martinsson & Tropp 2011) is seeded, so that the same texts give the same vectors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from conveyor.features.vocabulary import FIRST_ENTRY

__all__ = ["cooccurrence_vectors"]

_WINDOW = 4
_MOST_CONTEXTS = 4000  # the most frequent entries: rarer ones say little about their neighbours
_SMOOTHING = 0.75
_TOKENS_AT_ONCE = 500_000
_SPARE_DIMENSIONS = 16
_POWER_ROUNDS = 3

_Floats = npt.NDArray[np.float32]


def cooccurrence_vectors(rows: Iterable[npt.NDArray[np.int32]], size: int, dim: int, seed: int) -> _Floats:
    """A vector for each id.

    Args:
        rows: int32 [steps], the ids of each text; ids stand in descending order of frequency.
        size: How many ids there are.
        dim: Width of a vector.
        seed: Of the random projection.

    Returns:
        float32 [size, dim], with zero mean and unit deviation over all numbers; zeros for an id that was never seen,
        and for padding and unknown.
    """
    counts = _count(rows, size)
    contexts = counts.sum(axis=0) ** _SMOOTHING
    totals = counts.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        counts *= contexts.sum() / totals
        counts /= contexts
        np.log(counts, out=counts)
    information = np.nan_to_num(counts, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    np.maximum(information, 0.0, out=information)
    vectors = _reduced(information, dim, seed)
    vectors[:FIRST_ENTRY] = 0.0
    deviation = float(vectors[FIRST_ENTRY:].std())
    return vectors / deviation if deviation else vectors


def _count(rows: Iterable[npt.NDArray[np.int32]], size: int) -> _Floats:
    """float32 [size, contexts]: how often an id stands near another, by the inverse of the distance."""
    contexts = min(size, FIRST_ENTRY + _MOST_CONTEXTS)
    counts = np.zeros((size, contexts), np.float32)
    waiting: list[npt.NDArray[np.int32]] = []
    tokens = 0
    for row in rows:
        # zeros between the texts: nothing is near what is in another one
        waiting += [row, np.zeros(_WINDOW, np.int32)]
        tokens += len(row)
        if tokens >= _TOKENS_AT_ONCE:
            _add(counts, waiting)
            waiting, tokens = [], 0
    if waiting:
        _add(counts, waiting)
    counts[:, :FIRST_ENTRY] = 0.0
    return counts


def _add(counts: _Floats, rows: Sequence[npt.NDArray[np.int32]]) -> None:
    ids = np.concatenate(rows).astype(np.int64)
    contexts = counts.shape[1]
    for distance in range(1, _WINDOW + 1):
        for here, there in ((ids[distance:], ids[:-distance]), (ids[:-distance], ids[distance:])):
            used = (here >= FIRST_ENTRY) & (there >= FIRST_ENTRY) & (there < contexts)
            pairs, times = np.unique(here[used] * contexts + there[used], return_counts=True)
            counts.reshape(-1)[pairs] += (times / distance).astype(np.float32)


def _reduced(matrix: _Floats, dim: int, seed: int) -> _Floats:
    """The rows of a matrix in `dim` dimensions."""
    width = min(dim + _SPARE_DIMENSIONS, *matrix.shape)
    basis = matrix @ np.random.default_rng(seed).standard_normal((matrix.shape[1], width), np.float32)
    for _ in range(_POWER_ROUNDS):
        basis = matrix @ (matrix.T @ np.linalg.qr(basis)[0])
    basis = np.linalg.qr(basis)[0]
    left, values, _ = np.linalg.svd(basis.T @ matrix, full_matrices=False)
    found = (basis @ left * np.sqrt(values))[:, :dim]
    return np.pad(found, ((0, 0), (0, dim - found.shape[1]))).astype(np.float32)
