"""One number that makes probabilities mean what they say."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

__all__ = ["fit_temperature"]

_LOWEST, _HIGHEST = 0.25, 8.0
_ROUNDS = 24


def fit_temperature(loss: Callable[[float], float]) -> float:
    """The temperature with the least loss, by ternary search over its logarithm: a negative log-likelihood has one
    valley."""
    low, high = np.log(_LOWEST), np.log(_HIGHEST)
    for _ in range(_ROUNDS):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        if loss(float(np.exp(left))) < loss(float(np.exp(right))):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))
