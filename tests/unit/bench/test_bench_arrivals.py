"""The arrivals of an open loop."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from conveyor.bench.arrivals import poisson_arrivals


@given(rate=st.floats(0.1, 500.0), duration_s=st.floats(0.001, 20.0), seed=st.integers(0, 2**32))
def test_arrivals_are_seeded_ascend_and_stay_inside(rate: float, duration_s: float, seed: int) -> None:
    """A seed gives one order of events, inside the time that was asked for."""
    arrivals = poisson_arrivals(rate, duration_s, seed)

    np.testing.assert_array_equal(arrivals, poisson_arrivals(rate, duration_s, seed))
    assert np.all(np.diff(arrivals) > 0)
    assert np.all((0 <= arrivals) & (arrivals < duration_s))


def test_the_process_is_poisson() -> None:
    """Counts have the mean and the variance of a Poisson law, and gaps the deviation of an exponential one."""
    rate, duration_s, num_seeds = 50.0, 10.0, 400
    runs = [poisson_arrivals(rate, duration_s, seed) for seed in range(num_seeds)]
    counts = np.array([len(run) for run in runs])
    gaps = np.concatenate([np.diff(run) for run in runs])
    expected = rate * duration_s

    # Five standard errors; the variance of a sample variance is about 2 sigma^4 / n.
    assert abs(counts.mean() - expected) < 5 * (expected / num_seeds) ** 0.5
    assert abs(counts.var(ddof=1) - expected) < 5 * expected * (2 / num_seeds) ** 0.5
    assert abs(gaps.mean() - 1 / rate) < 5 / rate / len(gaps) ** 0.5
    assert abs(gaps.std() - 1 / rate) < 10 / rate / len(gaps) ** 0.5


def test_another_seed_gives_other_arrivals() -> None:
    """Repetitions of a measurement can differ."""
    assert not np.array_equal(poisson_arrivals(100.0, 1.0, 1)[:10], poisson_arrivals(100.0, 1.0, 2)[:10])
