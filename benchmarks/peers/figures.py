"""From measurements to figures: percentiles, the highest rate that holds, and the lines of the table."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

__all__ = ["MEASURES", "highest_rate", "percentile", "ratio", "result_line"]

# Name, and whether less is better; in the order in which they are printed.
MEASURES = {
    "http_c1_p50": "ms",
    "http_c32": "req/s",
    "http_c128": "req/s",
    "http_c128_float32": "req/s",
    "http_c128_same_engine": "req/s",
    "grpc_8x16": "req/s",
    "open_loop_p99_50ms": "req/s",
    "per_cpu_second": "req per CPU s",
}

_STRIDE = 1.3


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of all do not exceed; infinite without any."""
    if not values:
        return math.inf
    rank = math.ceil(round(percent / 100 * len(values), 9))
    return sorted(values)[max(rank, 1) - 1]


def highest_rate(holds: Callable[[float], bool], guess: float, halvings: int = 3, strides: int = 12) -> float:
    """The highest rate that holds, found by doubling out from a guess and halving in, on a logarithmic scale.

    With three halvings the answer is short of the true limit by 3 % at most.

    Args:
        holds: Called with a rate; a rate that fails may be tried again by the caller's own rule.
        strides: Steps of 30 % taken from the guess before giving up.

    Returns:
        0 if none of the rates tried holds.
    """
    low = high = 0.0
    rate = guess
    for _ in range(strides):
        if holds(rate):
            low = rate
            if high:
                break
            rate *= _STRIDE
        else:
            high = rate
            if low:
                break
            rate /= _STRIDE
    if not low or not high:
        return low
    for _ in range(halvings):
        middle = math.sqrt(low * high)
        if holds(middle):
            low = middle
        else:
            high = middle
    return low


def ratio(ours: float, theirs: float) -> float:
    """Ours over theirs, for every measure alike: above 1 is better for rates, below 1 for times."""
    return ours / theirs if theirs else math.inf


def result_line(peer: str, measure: str, ours: float, theirs: float) -> str:
    """A line of the table."""
    if measure not in MEASURES:
        raise ValueError(f"no measure is called {measure!r}")
    digits = 3 if MEASURES[measure] == "ms" else 0
    return f"RESULT {peer} {measure} {ours:.{digits}f} {theirs:.{digits}f} {ratio(ours, theirs):.2f}"
