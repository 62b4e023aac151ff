"""The arrival process of an open loop."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["poisson_arrivals"]


def poisson_arrivals(rate: float, duration_s: float, seed: int) -> npt.NDArray[np.float64]:
    """Draws the times of a Poisson process: ascending seconds in [0, duration_s), float64, the same for a seed.

    Users who do not know of each other arrive like this: gaps are exponential with mean 1/rate, whatever the server
    does meanwhile. A generator that waits for answers leaves out the arrivals that would have met a slow server
    (Tene's "coordinated omission").
    """
    random = np.random.default_rng(seed)
    chunks: list[npt.NDArray[np.float64]] = []
    reached = 0.0
    while reached < duration_s:
        expected = rate * (duration_s - reached)
        # Nearly always enough at once; a chunk that falls short is followed by another.
        gaps = random.exponential(1.0 / rate, size=int(expected + 4.0 * expected**0.5) + 1)
        times = reached + np.cumsum(gaps)
        chunks.append(times)
        reached = float(times[-1])
    arrivals = np.concatenate(chunks)
    return arrivals[arrivals < duration_s]
