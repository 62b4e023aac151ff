"""Quantiles of recorded durations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conveyor.bench.latency import MAX_S, Latencies

durations = st.lists(st.floats(1e-6, MAX_S), min_size=1, max_size=200)


def recorded(values: list[float]) -> Latencies:
    """A histogram of seconds."""
    latencies = Latencies()
    for value in values:
        latencies.record(value)
    return latencies


@given(values=durations, percent=st.sampled_from([50.0, 90.0, 99.0, 99.9, 100.0]))
def test_a_quantile_is_the_order_statistic_to_three_digits(values: list[float], percent: float) -> None:
    """At least so many do not exceed it; the error is a thousandth and a microsecond of rounding."""
    rank = next(rank for rank in range(1, len(values) + 1) if 1000 * rank >= round(10 * percent) * len(values))
    expected_ms = 1000 * sorted(values)[rank - 1]

    assert expected_ms == pytest.approx(recorded(values).quantile_ms(percent), rel=1.1e-3, abs=1.1e-3)


@given(values=durations)
def test_the_encoded_form_keeps_every_count(values: list[float]) -> None:
    """What is read back gives the same numbers."""
    latencies = recorded(values)
    read = Latencies.decode(latencies.encode())

    assert len(values) == read.count
    assert list(latencies.steps()) == list(read.steps())
    assert latencies.quantile_ms(99.0) == read.quantile_ms(99.0)


@given(values=durations)
def test_steps_are_the_quantile_function(values: list[float]) -> None:
    """Both coordinates ascend; the last step is the largest duration."""
    steps = list(recorded(values).steps())
    counts, levels_ms = zip(*steps, strict=True)

    assert 0 == counts[0]
    assert sorted(set(counts)) == list(counts)
    assert sorted(set(levels_ms)) == list(levels_ms)
    assert 1000 * max(values) == pytest.approx(levels_ms[-1], rel=1.1e-3, abs=1.1e-3)


def test_no_durations_are_zeros() -> None:
    """A measurement without answers has a report too."""
    latencies = Latencies()

    assert (0, 0.0, 0.0, 0.0) == (latencies.count, latencies.mean_ms, latencies.max_ms, latencies.quantile_ms(99.0))
    assert [] == list(Latencies.decode(latencies.encode()).steps())


def test_what_is_over_the_range_counts_as_its_end() -> None:
    """No duration is dropped."""
    latencies = recorded([2 * MAX_S, -0.001])

    assert 2 == latencies.count
    assert 1000 * MAX_S == pytest.approx(latencies.max_ms, rel=1e-3)
