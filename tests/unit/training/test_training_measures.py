"""Measures against values computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conveyor.training.measures import (
    calibration_error,
    classification,
    forecast_errors,
    level_pairs,
    seasonal_naive,
    spans_f1,
    tagging_accuracy,
)


def test_classification_by_hand() -> None:
    """Positive: 2 hits of 3 predicted and 3 expected, F1 2/3; negative: 1 of 2 and 2, F1 1/2."""
    expected = ["pos", "pos", "pos", "neg", "neg"]
    predicted = ["pos", "pos", "neg", "neg", "pos"]
    scores = classification(expected, predicted)
    assert 0.6 == pytest.approx(scores["accuracy"])
    assert (2 / 3 + 1 / 2) / 2 == pytest.approx(scores["macro_f1"])


def test_a_label_never_predicted_counts_in_macro_f1() -> None:
    """Always saying the majority gets an F1 of zero for the other class."""
    assert (6 / 7 + 0) / 2 == pytest.approx(classification(["a", "a", "a", "b"], ["a"] * 4)["macro_f1"])


@pytest.mark.parametrize("predicted", [[], ["a", "b"]])
def test_classification_needs_pairs(predicted: list[str]) -> None:
    """Nothing to score and unequal counts are errors."""
    with pytest.raises(ValueError, match="as many predictions"):
        classification(["a"] if predicted else [], predicted)


def test_calibration_error_by_hand() -> None:
    """Two answers at 0.9 of which one is right miss by 0.4, two at 0.5 of which one is right by nothing."""
    probability = np.array([0.9, 0.9, 0.5, 0.5])
    assert 0.2 == pytest.approx(calibration_error(probability, np.array([True, False, True, False])))
    assert 0.0 == pytest.approx(calibration_error(np.array([1.0]), np.array([True])))


def test_levels_are_paired_from_outside_in() -> None:
    """The median and a level without a partner belong to no pair."""
    assert [(0.1, 0.9), (0.25, 0.75)] == level_pairs((0.05, 0.1, 0.25, 0.5, 0.75, 0.9))


def test_tagging_accuracy_counts_tokens() -> None:
    """Tokens count alike, whatever text they stand in."""
    assert {"accuracy": 0.75} == tagging_accuracy([["A"], ["B", "C", "D"]], [["X"], ["B", "C", "D"]])


def test_spans_f1_as_seqeval_counts() -> None:
    """Wrong type, wrong boundary, missed and invented entities are all wrong: the micro average of seqeval."""
    expected = [[(0, 2, "PER"), (3, 4, "LOC")], [(0, 1, "ORG")], []]
    predicted = [[(0, 2, "PER"), (3, 5, "LOC")], [(0, 1, "PER")], [(2, 3, "LOC")]]
    scores = spans_f1(expected, predicted)
    assert (1 / 4, 1 / 3, 2 / 7) == pytest.approx((scores["precision"], scores["recall"], scores["f1"]))


def test_spans_f1_as_sighan_counts() -> None:
    """Gold AB|C|DE, cut A|B|C|DE: 2 right of 4 given and of 3 true."""
    expected = [[(0, 2, "word"), (2, 3, "word"), (3, 5, "word")]]
    predicted = [[(0, 1, "word"), (1, 2, "word"), (2, 3, "word"), (3, 5, "word")]]
    scores = spans_f1(expected, predicted)
    assert (0.5, 2 / 3, 4 / 7) == pytest.approx((scores["precision"], scores["recall"], scores["f1"]))


def test_spans_f1_of_nothing_is_zero() -> None:
    """No spans at all score zero, not an error."""
    assert {"precision": 0.0, "recall": 0.0, "f1": 0.0} == spans_f1([[]], [[]])


spans = st.lists(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.sampled_from("ab"))), min_size=1)


@given(spans)
def test_the_truth_scores_one(truth: list[list[tuple[int, int, str]]]) -> None:
    """Predicting the truth gives an F1 of one, if there is anything to find."""
    assert (1.0 if any(truth) else 0.0) == spans_f1(truth, truth)["f1"]


def test_forecast_errors_by_hand() -> None:
    """Missing values count for nothing; the pinball loss is the mean over levels."""
    actual = np.array([10.0, 20.0, np.nan, 40.0])
    mean = np.array([12.0, 19.0, 0.0, 40.0])
    quantiles = {0.1: np.array([8.0, 21.0, 0.0, 40.0]), 0.9: np.array([14.0, 25.0, 0.0, 41.0])}
    errors = forecast_errors(actual, mean, quantiles, np.array([14.0, 20.0, 30.0, 38.0]))
    assert 1.0 == pytest.approx(errors["mae"])
    assert 5 / 3 == pytest.approx(errors["mse"])
    low, high = (0.1 * 2 + 0.9 * 1 + 0) / 3, (0.1 * 4 + 0.1 * 5 + 0.1 * 1) / 3
    assert (low + high) / 2 == pytest.approx(errors["quantile_loss"])
    assert 2 / 3 == pytest.approx(errors["coverage_80"])
    assert 2.0 == pytest.approx(errors["naive_mae"])
    assert 0.5 == pytest.approx(errors["mae_ratio"])


def test_forecast_errors_need_something_seen() -> None:
    """A series with nothing observed has no error."""
    with pytest.raises(ValueError, match="one observed value"):
        forecast_errors(np.array([np.nan]), np.zeros(1), {})


def test_seasonal_naive_repeats_the_last_season() -> None:
    """Beyond one season the season comes again; too short a history is refused."""
    history = np.arange(6.0)[:, None]
    assert [3.0, 4.0, 5.0, 3.0] == seasonal_naive(history, 4, 3)[:, 0].tolist()
    assert [5.0, 5.0] == seasonal_naive(history, 2, 1)[:, 0].tolist()
    with pytest.raises(ValueError, match="7 steps"):
        seasonal_naive(history, 1, 7)
