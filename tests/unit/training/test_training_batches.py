"""Batches: every row once, within the budget, the same for the same seed."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from conveyor.training.batches import draw_batches, hide_tokens, pad

lengths = st.lists(st.integers(0, 60), max_size=200).map(lambda values: np.array(values, dtype=np.int64))


@given(lengths, st.integers(1, 100), st.integers(1, 20), st.integers(0, 5))
def test_every_row_is_in_one_batch_within_the_budget(
    lengths: np.ndarray, padded_steps: int, rows: int, seed: int
) -> None:
    """Only a row that is too long by itself breaks the budget, and it stands alone."""
    batches = draw_batches(lengths, padded_steps=padded_steps, rows=rows, rng=np.random.default_rng(seed))
    assert list(range(len(lengths))) == sorted(int(row) for batch in batches for row in batch)
    for batch in batches:
        assert 1 <= len(batch) <= rows
        assert len(batch) == 1 or len(batch) * lengths[batch].max() <= padded_steps


def test_the_seed_decides_the_batches() -> None:
    """The same seed gives the same batches, another one others."""
    sizes = np.random.default_rng(0).integers(1, 40, 300)

    def drawn(seed: int) -> list[list[int]]:
        rng = np.random.default_rng(seed)
        return [batch.tolist() for batch in draw_batches(sizes, padded_steps=200, rows=8, rng=rng)]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_rows_of_a_batch_are_of_similar_length() -> None:
    """Sorting within pools leaves little padding: under a tenth, where random batches have about half."""
    sizes = np.random.default_rng(0).integers(1, 200, 5000)
    batches = draw_batches(sizes, padded_steps=4000, rows=32, rng=np.random.default_rng(0))
    padded = sum(len(batch) * int(sizes[batch].max()) for batch in batches)
    assert padded < 1.1 * sizes.sum()


def test_padding_is_zero_after_each_end() -> None:
    """Rows keep their values, and their dtype."""
    padded = pad([np.array([[1], [2]], dtype=np.int32), np.zeros((0, 1), dtype=np.int32)])
    assert [[[1], [2]], [[0], [0]]] == padded.tolist()
    assert np.int32 == padded.dtype


def test_hidden_tokens_are_unknown_in_every_column() -> None:
    """About the wanted share is hidden, whole tokens at a time, and never padding."""
    ids = np.full((50, 40, 2), 7, dtype=np.int32)
    ids[:, 30:] = 0
    hidden = hide_tokens(ids, 0.25, 1, np.random.default_rng(0))
    assert {0} == set(hidden[:, 30:].ravel().tolist())
    assert {(1, 1), (7, 7)} == {tuple(pair) for pair in hidden[:, :30].reshape(-1, 2).tolist()}
    assert 0.2 < (hidden[:, :30, 0] == 1).mean() < 0.3
    assert ids is hide_tokens(ids, 0.0, 1, np.random.default_rng(0))
