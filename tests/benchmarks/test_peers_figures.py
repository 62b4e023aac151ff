"""The arithmetic of the comparison with other servers."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
from peers.figures import MEASURES, highest_rate, percentile, ratio, result_line
from peers.measure import together


def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed() -> None:
    """Of the nearest ranks the one above, whatever the order."""
    values = [float(value) for value in range(1, 101)]
    random.Random(1).shuffle(values)
    assert [50.0, 99.0, 100.0, 1.0] == [percentile(values, rank) for rank in (50, 99, 100, 0)]
    assert 7.0 == percentile([7.0], 99)


def test_what_was_never_answered_counts_as_infinitely_late() -> None:
    """One of a hundred does not move the 99th percentile; two do. Nothing measured holds no limit."""
    assert 1.0 == percentile([1.0] * 99 + [math.inf], 99)
    assert math.inf == percentile([1.0] * 98 + [math.inf] * 2, 99)
    assert math.inf == percentile([], 50)


@pytest.mark.parametrize("limit", [40.0, 333.0, 1000.0, 1010.0, 9000.0])
def test_the_search_ends_just_below_the_highest_rate_that_holds(limit: float) -> None:
    """Wherever it begins: short of the limit by less than 4 %, never above it."""
    found = highest_rate(lambda rate: rate <= limit, guess=1000.0, strides=20)
    assert 0.96 * limit < found <= limit


def test_the_search_gives_up() -> None:
    """On a server that holds nothing, with 0; on one that holds everything, with the last rate tried."""
    tried: list[float] = []
    assert 0 == highest_rate(lambda rate: bool(tried.append(rate)), guess=100.0, strides=5)  # type: ignore[func-returns-value]
    assert 5 == len(tried)
    assert 100 * 1.3**4 == pytest.approx(highest_rate(lambda _: True, guess=100.0, strides=5))


def test_turns_count_by_their_time() -> None:
    """A long turn counts for more than a short one, and one slow turn does not decide over a quantile."""
    turns = [
        {"requests_per_s": 100.0, "requests": 100, "seconds": 1.0, "p50_ms": 1.0, "cpu_s": 1.0},
        {"requests_per_s": 400.0, "requests": 1200, "seconds": 3.0, "p50_ms": 2.0, "cpu_s": 2.0},
        {"requests_per_s": 50.0, "requests": 50, "seconds": 1.0, "p50_ms": 90.0, "cpu_s": 2.0},
    ]
    found = together(turns)
    assert (270.0, 2.0, 270.0) == (found["requests_per_s"], found["p50_ms"], found["requests_per_cpu_s"])
    assert [100.0, 400.0, 50.0] == found["turns"]


def test_a_line_of_the_table() -> None:
    """Peer, measure, ours, theirs and ours over theirs, apart by spaces; times with three digits."""
    assert "RESULT triton http_c128 9000 4000 2.25" == result_line("triton", "http_c128", 9000.2, 4000.1)
    assert "RESULT naive http_c1_p50 0.500 1.000 0.50" == result_line("naive", "http_c1_p50", 0.5, 1.0)
    assert math.inf == ratio(1.0, 0.0)
    with pytest.raises(ValueError, match="http_c2"):
        result_line("triton", "http_c2", 1.0, 1.0)


def test_every_measure_has_its_line() -> None:
    """The names that readers of the output look for."""
    names = "http_c1_p50 http_c32 http_c128 http_c128_float32 http_c128_same_engine grpc_8x16 open_loop_p99_50ms"
    assert [*names.split(), "per_cpu_second"] == list(MEASURES)
    assert Counter(["ms"]) == Counter(unit for name, unit in MEASURES.items() if unit == "ms")
