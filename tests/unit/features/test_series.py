from __future__ import annotations

from dataclasses import astuple
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from conveyor.errors import InvalidArgument
from conveyor.features.series import SeriesEncoder
from conveyor.spec import SeriesSpec

START = datetime(2024, 3, 1, tzinfo=UTC)
SPEC = SeriesSpec(
    features=("load", "heat"),
    targets=("heat",),
    frequency="h",
    calendar=("time_of_day", "day_of_year"),
    half_life_steps=5,
)
ONE = SeriesSpec(features=("y",), targets=("y",), frequency="D", half_life_steps=4)

_number = st.floats(-1e9, 1e9) | st.just(float("nan"))


def _values(width: int = 2) -> st.SearchStrategy[npt.NDArray[np.float64]]:
    return hnp.arrays(np.float64, st.tuples(st.integers(1, 25), st.just(width)), elements=_number)


def _column(*values: float) -> npt.NDArray[np.float64]:
    return np.array(values, np.float64)[:, None]


@given(_values(), st.data())
def test_a_series_may_be_cut_anywhere(values: npt.NDArray[np.float64], data: st.DataObject) -> None:
    """Pieces with carried state give the bits of the whole, and leave the state they began from untouched."""
    encoder = SeriesEncoder(SPEC)
    whole, end = encoder.advance(encoder.initial_state(), values, START)
    cut = data.draw(st.integers(0, len(values)))
    first, middle = encoder.advance(encoder.initial_state(), values[:cut], START)
    before = [np.array(part).tobytes() for part in astuple(middle)]
    second, after = encoder.advance(middle, values[cut:], START)
    assert before == [np.array(part).tobytes() for part in astuple(middle)]
    for name in ("inputs", "loc", "scale"):
        pieces = np.concatenate([getattr(first, name), getattr(second, name)])
        assert getattr(whole, name).tobytes() == pieces.tobytes()
    assert [np.array(part).tobytes() for part in astuple(end)] == [np.array(part).tobytes() for part in astuple(after)]


@given(_values(), st.data())
def test_nothing_later_influences_a_step(values: npt.NDArray[np.float64], data: st.DataObject) -> None:
    """What comes after step t may be anything."""
    encoder = SeriesEncoder(SPEC)
    step = data.draw(st.integers(0, len(values) - 1))
    other = values.copy()
    other[step + 1 :] = data.draw(hnp.arrays(np.float64, other[step + 1 :].shape, elements=_number))
    here, there = encoder.encode(values, START), encoder.encode(other, START)
    for name in ("inputs", "loc", "scale"):
        assert getattr(here, name)[: step + 1].tobytes() == getattr(there, name)[: step + 1].tobytes()


@given(_values())
def test_everything_is_finite_and_scales_are_positive(values: npt.NDArray[np.float64]) -> None:
    """Missing values, whole missing columns and constant ones included."""
    encoded = SeriesEncoder(SPEC).encode(values, START)
    assert (len(values), SPEC.width) == encoded.inputs.shape
    assert np.float32 == encoded.inputs.dtype
    assert np.isfinite(encoded.inputs).all()
    assert np.isfinite(encoded.loc).all()
    assert (encoded.scale > 0).all()
    assert np.isfinite(encoded.scale).all()


@given(_values(1))
def test_restore_undoes_standardise(values: npt.NDArray[np.float64]) -> None:
    """To float64 rounding at the size of the numbers involved."""
    encoder = SeriesEncoder(ONE)
    encoded = encoder.encode(values, None)
    loc, scale = encoded.loc[-1], encoded.scale[-1]
    standard = encoder.standardise(values, loc, scale)
    restored = encoder.restore(standard[:, :, None], loc, scale)[:, :, 0]
    tolerance = 1e-14 * (np.nanmax(np.abs(values), initial=0.0) + np.abs(loc) + scale)
    np.testing.assert_allclose(restored, values, rtol=0, atol=float(tolerance[0]))


def test_mean_and_deviation_follow_the_definition() -> None:
    """Weights of 0.5 ** (age / half_life) over what was observed, normalised."""
    values = np.random.default_rng(7).normal(50, 3, (40, 1))
    values[[3, 4, 20]] = np.nan
    encoded = SeriesEncoder(ONE).encode(values, None)
    for step in (5, 20, 39):
        seen = values[: step + 1, 0]
        weights = np.where(np.isnan(seen), 0.0, 0.5 ** (np.arange(step, -1, -1) / ONE.half_life_steps))
        weights /= weights.sum()
        mean = np.nansum(weights * seen)
        deviation = np.sqrt(np.nansum(weights * (seen - mean) ** 2))
        np.testing.assert_allclose(encoded.loc[step, 0], mean, rtol=1e-13)
        np.testing.assert_allclose(encoded.scale[step, 0], deviation, rtol=1e-12)


def test_a_large_offset_costs_no_digits() -> None:
    """A series a billion higher is scaled alike."""
    values = np.random.default_rng(3).integers(0, 100, (200, 1)).astype(np.float64)
    encoder = SeriesEncoder(ONE)
    low, high = encoder.encode(values, None), encoder.encode(values + 2.0**40, None)
    np.testing.assert_allclose(high.scale[1:], low.scale[1:], rtol=1e-5)
    np.testing.assert_allclose(high.inputs[1:], low.inputs[1:], atol=1e-3)


@pytest.mark.parametrize(("value", "scale"), [(250.0, 0.25), (-8.0, 0.008), (0.0, 1.0)])
def test_while_nothing_moves_the_scale_is_a_thousandth_of_the_mean(value: float, scale: float) -> None:
    """Or one for a series of zeros; from the first value on."""
    for length in (1, 30):
        encoded = SeriesEncoder(ONE).encode(_column(*[value] * length), None)
        assert value == encoded.loc[-1, 0]
        np.testing.assert_allclose(encoded.scale[-1, 0], scale)
        assert [0.0, 1.0] == encoded.inputs[-1].tolist()


def test_a_missing_value_is_zero_and_absent_and_changes_nothing() -> None:
    """Mean and scale stay, also over a gap so long that all weight is forgotten."""
    encoded = SeriesEncoder(ONE).encode(_column(1.0, 3.0, *[float("nan")] * 10_000, 7.0), None)
    assert [0.0, 0.0] == encoded.inputs[2].tolist()
    assert encoded.loc[1, 0] == encoded.loc[10_001, 0]
    assert encoded.scale[1, 0] == encoded.scale[10_001, 0]
    assert 7.0 == encoded.loc[-1, 0]


def test_inputs_stand_in_the_documented_order() -> None:
    """Values, presences, waves of the calendar, and the flag."""
    values = np.array([[1.0, np.nan], [2.0, 5.0]])
    known = SeriesEncoder(SPEC).encode(values, START).inputs
    assert [[1.0, 0.0], [1.0, 1.0]] == known[:, 2:4].tolist()
    assert 0.0 < known[1, 0]
    np.testing.assert_allclose(known[0, 4:6], [0.0, 1.0], atol=1e-6)  # midnight
    assert [1.0, 1.0] == known[:, -1].tolist()
    unknown = SeriesEncoder(SPEC).encode(values, None).inputs
    assert not unknown[:, 4:].any()
    assert known[:, :4].tobytes() == unknown[:, :4].tobytes()


def test_loc_and_scale_are_those_of_the_targets() -> None:
    """In the order of the targets, not of the features."""
    spec = SeriesSpec(features=("a", "b", "c"), targets=("c", "a"), frequency="h", half_life_steps=3)
    encoded = SeriesEncoder(spec).encode(np.array([[10.0, 20.0, 30.0]]), None)
    assert [[30.0, 10.0]] == encoded.loc.tolist()


def test_restore_takes_rows_of_forecasts() -> None:
    """[rows, horizon, targets, k] with [rows, targets]."""
    outputs = np.ones((2, 3, 1, 4), np.float32)
    restored = SeriesEncoder(ONE).restore(outputs, np.array([[1.0], [2.0]]), np.array([[10.0], [20.0]]))
    assert np.float64 == restored.dtype
    assert [11.0, 22.0] == restored[:, 2, 0, 3].tolist()


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), 1e101])
def test_values_without_a_usable_square_are_refused(value: float) -> None:
    """Infinite ones, and those whose squares would become infinite."""
    with pytest.raises(InvalidArgument, match="finite"):
        SeriesEncoder(ONE).encode(_column(1.0, value), None)


def test_a_wrong_number_of_features_is_refused() -> None:
    """The message says how many the model takes."""
    with pytest.raises(InvalidArgument, match="2 numbers a step"):
        SeriesEncoder(SPEC).encode(np.zeros((4, 3)), None)
