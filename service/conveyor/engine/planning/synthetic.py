"""Rows made up for a model, where there is no data to try a plan on."""

from __future__ import annotations

import numpy as np

from conveyor.spec import ForecastSpec, PackageSpec
from conveyor.wire.messages import Inputs

__all__ = ["synthetic_rows"]

# Tokens of a text are spread like those of sentences: half have 20 or fewer, one in twenty has 66 or more.
_MEDIAN_STEPS, _SPREAD, _LONGEST = 20, 0.73, 512
# Rank of a word against how often it comes (Zipf 1949; the shift is Mandelbrot's 1953).
_SHIFT = 2.7
_UNKNOWN_SHARE = 0.03
_FIRST_ID, _UNKNOWN_ID = 2, 1
# What a step of a series keeps of the one before.
_KEPT = 0.9


def synthetic_rows(spec: PackageSpec, count: int, seed: int = 0) -> list[Inputs]:
    """Rows as the encoder of a package gives them: ids of its vocabulary, frequent ones often, or scaled series about
    as long as the history that its quality was measured from."""
    chance = np.random.default_rng(seed)
    if isinstance(spec, ForecastSpec):
        lengths = chance.integers(max(spec.history // 2, 1), spec.history + spec.history // 2 + 2, size=count)
        return [_series(chance, int(length), spec.series.width) for length in lengths]
    lengths = np.exp(chance.normal(np.log(_MEDIAN_STEPS), _SPREAD, size=count)).astype(np.int64)
    sizes = [column.size for column in spec.text.columns]
    shares = [np.cumsum(1.0 / (np.arange(size - _FIRST_ID) + _SHIFT)) for size in sizes]
    return [_text(chance, int(length), shares) for length in lengths.clip(1, _LONGEST)]


def _text(chance: np.random.Generator, steps: int, shares: list[np.ndarray]) -> Inputs:
    ids = np.full((steps, len(shares)), _UNKNOWN_ID, dtype=np.int32)
    for column, share in enumerate(shares):
        known = (chance.random(steps) >= _UNKNOWN_SHARE) & (len(share) > 0)
        drawn = chance.random(int(known.sum())) * (share[-1] if len(share) else 0.0)
        ids[known, column] = _FIRST_ID + np.searchsorted(share, drawn)
    return ids


def _series(chance: np.random.Generator, steps: int, width: int) -> Inputs:
    """Every column goes its own way around zero, with a deviation of one."""
    series = chance.normal(size=(steps, width))
    for step in range(1, steps):
        series[step] = _KEPT * series[step - 1] + np.sqrt(1 - _KEPT**2) * series[step]
    return series.astype(np.float32)
