"""Values and limits are checked before any work, and each refusal names the field."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conveyor.domain import ModelKey, Series
from conveyor.errors import DeadlineExceeded, InvalidArgument, NotFound, QueueFull, Unavailable
from conveyor.gateway.admission import Admission
from conveyor.gateway.catalogue import Catalogue, Entry, State
from conveyor.gateway.checks import check_horizon, check_levels, check_series, check_text, check_texts, check_tokens
from conveyor.gateway.codecs import ForecastCodec, SentimentCodec
from conveyor.gateway.items import series_item, text_item, text_or_tokens_item
from conveyor.gateway.limits import Limits
from conveyor.gateway.series_input import series_from_flat, series_from_nested
from support.packages import FORECAST

LIMITS = Limits(text_code_points=10, series_values=5)
MODEL = ModelKey("m", "1")
assert FORECAST.task == "forecast"


def series(*values: float, frequency: str | None = None) -> Series:
    """One feature, one value a step."""
    return Series(np.array(values, dtype=np.float64).reshape(-1, 1), None, frequency)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        (series(), "series[0].values"),
        (series(*range(6)), "series[0].values"),
        (series(1.0, math.inf), "series[0].values[1]"),
        (series(1.0, 1e101), "series[0].values[1]"),
        (series(math.nan, math.nan), "series[0].values"),
        (Series(np.zeros((2, 2))), "series[0].values"),
        (series(1.0, frequency="D"), "series[0].frequency"),
        (series(1.0, frequency="never"), "series[0].frequency"),
        (Series(np.zeros((1, 1)), datetime(9999, 12, 31, 23, 0, tzinfo=UTC)), "series[0].start"),
        (Series(np.zeros((1, 1)), datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))), "series[0].start"),
    ],
)
def test_a_series_that_is_not_acceptable_is_refused_by_field(given: Series, field: str) -> None:
    """Empty, too long, infinite, too large, unobserved, too wide, of another frequency."""
    with pytest.raises(InvalidArgument) as raised:
        check_series(given, FORECAST, "series[0]", LIMITS, 4)
    assert field == raised.value.field


def test_equal_frequencies_may_be_written_differently() -> None:
    """30min and 0.5h are the same step."""
    check_series(series(1.0, frequency="1800s"), FORECAST, "series[0]", LIMITS, 4)


def test_a_text_at_the_limit_is_accepted_and_one_beyond_is_not() -> None:
    """The limit counts code points."""
    check_text("😀" * 10, "inputs[0]", LIMITS)
    with pytest.raises(InvalidArgument, match="at most 10"):
        check_text("x" * 11, "inputs[0]", LIMITS)


@given(st.lists(st.text(st.sampled_from("a好\0\ud800\udc00"), max_size=12), max_size=4))
def test_texts_are_checked_as_each_of_them_is(texts: list[str]) -> None:
    """The first at fault is named, with the same words."""
    faults = [fault for index, text in enumerate(texts) if (fault := _fault(check_text, text, f"inputs[{index}]"))]
    assert (faults or [None])[0] == _fault(check_texts, texts, "inputs")


def _fault(check: Callable[..., None], given: object, field: str) -> tuple[str | None, str] | None:
    try:
        check(given, field, LIMITS)
    except InvalidArgument as error:
        return error.field, error.message
    return None


def test_tokens_count_with_the_spaces_that_join_them() -> None:
    """Given tokens obey the limit of the text they make; no tokens are an empty text."""
    check_tokens([], "inputs[0]", LIMITS)
    check_tokens(["abcd", "efghi"], "inputs[0]", LIMITS)
    with pytest.raises(InvalidArgument):
        check_tokens(["abcde", "fghij"], "inputs[0]", LIMITS)


@pytest.mark.parametrize("horizon", [-1, 0, 7])
def test_a_horizon_outside_the_models_is_refused(horizon: int) -> None:
    """1 to the largest horizon is accepted; none is the default."""
    with pytest.raises(InvalidArgument, match="1 to 6"):
        check_horizon(horizon, FORECAST)
    assert 4 == check_horizon(None, FORECAST)


@pytest.mark.parametrize(
    "levels", [[], [0.05], [0.5, 0.95], [math.nan], [0.5, 0.5], [0.5 + n / 1000 for n in range(101)]]
)
def test_levels_outside_the_trained_ones_are_refused(levels: list[float]) -> None:
    """Nothing is extrapolated, and NaN is no level."""
    with pytest.raises(InvalidArgument):
        check_levels(levels, FORECAST, LIMITS)


def test_admission_holds_room_and_gives_it_back() -> None:
    """Rows and size are bounded while work is in flight, also when it fails."""
    admission = Admission(max_rows=2, max_size=100, batch_rows=64)

    def admit(rows: int, size: int) -> AbstractContextManager[None]:
        return admission.admit(MODEL, rows, size, 0.0, math.inf)

    with admit(1, 60):
        with pytest.raises(QueueFull, match="code points"), admit(1, 41):
            pass
        with pytest.raises(QueueFull, match="rows"), admit(2, 1):
            pass
        with admit(1, 40):
            pass
    with pytest.raises(RuntimeError), admit(2, 100):
        raise RuntimeError
    with admit(2, 100):
        pass


def test_a_refused_caller_is_told_when_to_come_back() -> None:
    """`Retry-After` is the device time of what is in flight, by the engine's prices and the steps seen so far."""
    admission = Admission(max_rows=1, max_size=1000, batch_rows=64)
    admission.set_price(MODEL, 0.1)
    admission.learn(MODEL, size=100, steps=20)
    with (
        admission.admit(MODEL, 1, 400, 0.0, math.inf),
        pytest.raises(QueueFull) as raised,
        admission.admit(MODEL, 1, 1, 0.0, math.inf),
    ):
        pass
    assert 8.0 == raised.value.retry_after_s


def test_a_request_that_cannot_be_in_time_is_refused_at_once() -> None:
    """What is due before it counts, what is due later does not."""
    admission = Admission(max_rows=10, max_size=1000, batch_rows=64)
    admission.set_price(MODEL, 0.01)
    with admission.admit(MODEL, 1, 50, now=0.0, deadline=math.inf):
        with admission.admit(MODEL, 1, 30, now=0.0, deadline=0.4):
            pass
        with pytest.raises(DeadlineExceeded), admission.admit(MODEL, 1, 30, now=0.9, deadline=1.1):
            pass
        with pytest.raises(DeadlineExceeded), admission.admit(MODEL, 1, 30, now=0.0, deadline=0.2):
            pass
        with admission.admit(MODEL, 1, 30, now=0.0, deadline=0.99):
            pass


def test_an_idle_engine_has_the_last_word() -> None:
    """With nothing in flight even what looks too late is tried: an estimate could not be corrected otherwise."""
    admission = Admission(max_rows=10, max_size=1000, batch_rows=64)
    admission.set_price(MODEL, 0.01)
    with admission.admit(MODEL, 1, 30, now=0.0, deadline=0.1):
        pass


def test_where_more_waits_than_a_batch_holds_rows_may_be_overtaken() -> None:
    """A wait is reckoned as what is due before it, and as twice that in a crowd."""
    for batch_rows, shortest in ((2, 0.51), (1, 1.01)):
        admission = Admission(max_rows=10, max_size=1000, batch_rows=batch_rows)
        admission.set_price(MODEL, 0.01)
        with admission.admit(MODEL, 1, 50, now=0.0, deadline=0.5):
            with pytest.raises(DeadlineExceeded), admission.admit(MODEL, 1, 1, now=0.0, deadline=shortest - 0.01):
                pass
            with admission.admit(MODEL, 1, 1, now=0.0, deadline=shortest + 0.01):
                pass


def test_promises_that_are_not_kept_become_fewer_and_more_again_when_they_are() -> None:
    """Requests that were accepted and came too late make later ones be refused sooner; answers in time undo that."""
    admission = Admission(max_rows=1000, max_size=100_000, batch_rows=1)
    admission.set_price(MODEL, 0.01)

    def admit(deadline: float) -> AbstractContextManager[None]:
        return admission.admit(MODEL, 1, 1, now=0.0, deadline=deadline)

    def shortest_promise() -> float:
        for deadline in np.arange(0.5, 20.0, 0.01):
            try:
                with admit(float(deadline)):
                    raise RuntimeError  # neither in time nor too late
            except DeadlineExceeded:
                continue
            except RuntimeError:
                return float(deadline)
        raise AssertionError("nothing is accepted")

    with admission.admit(MODEL, 1, 50, now=0.0, deadline=0.5):
        at_first = shortest_promise()
        assert 1.0 == pytest.approx(at_first, abs=0.05)
        for _ in range(5):
            with pytest.raises(DeadlineExceeded, match="late"), admit(at_first + 0.2):
                raise DeadlineExceeded("late")
        assert at_first < shortest_promise() < at_first + 0.2
        for _ in range(1000):
            # What is refused at once, or has all the time there is, says nothing.
            with admit(1000.0):
                pass
            with pytest.raises(DeadlineExceeded, match="would take"), admit(0.7):
                pass
        assert at_first < shortest_promise()
        for _ in range(2000):
            with admit(at_first + 0.2):
                pass
        assert at_first == shortest_promise()


def test_one_bad_moment_does_not_refuse_everything() -> None:
    """However many requests were late, those accepted before are counted once, and there is a bound."""
    admission = Admission(max_rows=10_000, max_size=100_000, batch_rows=1)
    admission.set_price(MODEL, 0.01)
    with admission.admit(MODEL, 1, 50, now=0.0, deadline=0.5):
        accepted = [admission.admit(MODEL, 1, 0, now=0.0, deadline=1.01) for _ in range(500)]
        for request in accepted:
            request.__enter__()
        for request in accepted:
            assert not request.__exit__(DeadlineExceeded, DeadlineExceeded("late"), None)
        with admission.admit(MODEL, 1, 1, now=0.0, deadline=1.4):
            pass
        for deadline in np.repeat(np.arange(1.0, 20.0, 0.1), 30).tolist():
            with pytest.raises(DeadlineExceeded), admission.admit(MODEL, 1, 1, now=0.0, deadline=deadline):
                raise DeadlineExceeded("late")
        with admission.admit(MODEL, 1, 1, now=0.0, deadline=8.2):
            pass


def test_a_large_request_leaves_room_for_a_small_one_with_a_deadline() -> None:
    """The engine spaces the rows of a large request, and so does the estimate of what is ahead."""
    admission = Admission(max_rows=2000, max_size=1_000_000, batch_rows=64)
    admission.set_price(MODEL, 0.001)
    with admission.admit(MODEL, 1000, 10_000, now=0.0, deadline=math.inf):
        with admission.admit(MODEL, 1, 10, now=0.5, deadline=1.4):
            pass
        with pytest.raises(DeadlineExceeded), admission.admit(MODEL, 500, 5000, now=0.5, deadline=2.0):
            pass


def test_the_catalogue_tells_apart_why_a_model_does_not_answer() -> None:
    """Loading is a matter of time, refused and unknown are not, and a wrong task is the caller's mistake."""
    catalogue = Catalogue({"sentiment": "a", "tag": "b", "forecast": "c"})
    catalogue.put(Entry(ModelKey("a", "1"), State.LOADING))
    catalogue.put(Entry(ModelKey("b", "1"), State.FAILED, "broken"))
    catalogue.put(Entry(ModelKey("c", "1"), State.READY, None, FORECAST, ForecastCodec(FORECAST)))

    with pytest.raises(Unavailable):
        catalogue.resolve("sentiment", SentimentCodec, None, None)
    with pytest.raises(NotFound, match="refused"):
        catalogue.resolve("sentiment", SentimentCodec, "b", None)
    with pytest.raises(NotFound, match="there are: a, b, c"):
        catalogue.resolve("sentiment", SentimentCodec, "d", None)
    with pytest.raises(NotFound, match="there are: 1"):
        catalogue.resolve("forecast", ForecastCodec, "c", "2")
    with pytest.raises(InvalidArgument, match="is for forecast"):
        catalogue.resolve("sentiment", SentimentCodec, "c", None)
    assert ModelKey("c", "1") == catalogue.resolve("forecast", ForecastCodec, None, None)[0]


def test_a_version_that_serves_is_preferred_to_a_higher_one_that_does_not() -> None:
    """A refused new version leaves the old one serving."""
    catalogue = Catalogue({"sentiment": "a", "tag": "b", "forecast": "c"})
    codec = ForecastCodec(FORECAST)
    catalogue.put(Entry(ModelKey("c", "9"), State.READY, None, FORECAST, codec))
    catalogue.put(Entry(ModelKey("c", "10"), State.FAILED, "broken"))
    catalogue.put(Entry(ModelKey("c", "11"), State.LOADING))

    assert ModelKey("c", "9") == catalogue.resolve("forecast", ForecastCodec, None, None)[0]
    assert ["9"] == catalogue.describe_one("c").versions


def test_series_are_read_from_rows_numbers_and_flat_values() -> None:
    """The same history in its three spellings."""
    rows = series_from_nested([[1.0], [None], [3.0]], None, None, "s").values
    plain = series_from_nested([1.0, None, 3.0], None, None, "s").values
    flat = series_from_flat([1.0, math.nan, 3.0], 0, "", "", "s").values

    np.testing.assert_array_equal(rows, plain)
    np.testing.assert_array_equal(rows, flat)
    assert (2, 2) == series_from_flat([1.0, 2.0, 3.0, 4.0], 2, "", "", "s").values.shape
    with pytest.raises(InvalidArgument) as raised:
        series_from_flat([1.0, 2.0, 3.0], 2, "", "", "s")
    assert "s.features" == raised.value.field


@pytest.mark.parametrize(
    ("read", "value", "field"),
    [
        (text_item, 3, "x"),
        (text_or_tokens_item, ["a", 3], "x[1]"),
        (series_item, [1.0], "x"),
        (series_item, {"values": [1.0], "begin": "now"}, "x.begin"),
        (series_item, {"values": "no"}, "x.values"),
        (series_item, {"values": [1.0, True]}, "x.values[1]"),
        (series_item, {"values": [1.0], "start": 3}, "x.start"),
    ],
)
def test_items_of_the_wrong_kind_are_refused_by_field(read: object, value: object, field: str) -> None:
    """Decoded JSON from files is checked as strictly as a request."""
    with pytest.raises(InvalidArgument) as raised:
        read(value, "x")  # type: ignore[operator]
    assert field == raised.value.field
