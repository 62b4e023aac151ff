"""The measures of the field, from predictions and truth. Pure functions; a share is between 0 and 1."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import isclose

import numpy as np
import numpy.typing as npt

__all__ = [
    "calibration_error",
    "classification",
    "forecast_errors",
    "level_pairs",
    "seasonal_naive",
    "spans_f1",
    "tagging_accuracy",
]

_CALIBRATION_BINS = 15


def classification(expected: Sequence[str], predicted: Sequence[str]) -> dict[str, float]:
    """Accuracy, and macro F1: the mean over the expected labels of each label's F1 (0 where undefined)."""
    if not expected or len(expected) != len(predicted):
        raise ValueError(f"needs as many predictions as labels, and one at least: {len(predicted)}, {len(expected)}")
    pairs = list(zip(expected, predicted, strict=True))
    scores = []
    for label in sorted(set(expected)):
        hits = sum(a == b == label for a, b in pairs)
        scores.append(_f1(hits, sum(b == label for _, b in pairs), sum(a == label for a, _ in pairs)))
    return {"accuracy": sum(a == b for a, b in pairs) / len(pairs), "macro_f1": float(np.mean(scores))}


def calibration_error(probability: npt.NDArray[np.floating], right: npt.NDArray[np.bool_]) -> float:
    """Expected calibration error: how far the share of right answers is from the probability stated, in 15 bins of
    equal width (Guo et al. 2017, section 2).

    Args:
        probability: Of each answer that was given; [answers].
        right: Whether it was the right one; [answers].
    """
    bins = np.minimum((probability * _CALIBRATION_BINS).astype(np.int64), _CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, weights=right.astype(np.float64) - probability, minlength=_CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(probability))


def tagging_accuracy(expected: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, float]:
    """Share of tokens with the right tag, over all texts together."""
    pairs = [pair for a, b in zip(expected, predicted, strict=True) for pair in zip(a, b, strict=True)]
    if not pairs:
        raise ValueError("needs one token at least")
    return {"accuracy": sum(a == b for a, b in pairs) / len(pairs)}


def spans_f1(
    expected: Iterable[Iterable[tuple[int, int, str]]], predicted: Iterable[Iterable[tuple[int, int, str]]]
) -> dict[str, float]:
    """Precision, recall and F1 of spans (start, end, label), counted over all texts together: a span is right if
    boundaries and label are. The micro average of CoNLL 2003 and seqeval for entities, of SIGHAN for words."""
    hits = num_expected = num_predicted = 0
    for a, b in zip(map(set, expected), map(set, predicted), strict=True):
        hits += len(a & b)
        num_expected += len(a)
        num_predicted += len(b)
    return {
        "precision": hits / num_predicted if num_predicted else 0.0,
        "recall": hits / num_expected if num_expected else 0.0,
        "f1": _f1(hits, num_predicted, num_expected),
    }


def forecast_errors(
    actual: npt.NDArray[np.float64],
    mean: npt.NDArray[np.float64],
    quantiles: Mapping[float, npt.NDArray[np.float64]],
    naive: npt.NDArray[np.float64] | None = None,
) -> dict[str, float]:
    """Errors of forecasts against what came, over all steps and targets that were observed.

    Args:
        actual: float64, any shape, NaN where missing.
        mean: The same shape.
        quantiles: The same shape, by level.
        naive: The same shape, the reference forecast; steps where it is NaN count for nothing.

    Returns:
        `mae` and `mse` of the mean; `quantile_loss`, the mean pinball loss over the levels (Koenker & Bassett 1978);
        `coverage_80` for the levels 0.1 and 0.9, and so on: the share of actual values between two levels that leave
        out equally much; with a reference `naive_mae` and `mae_ratio`.
    """
    seen = np.isfinite(actual) if naive is None else np.isfinite(actual) & np.isfinite(naive)
    if not seen.any():
        raise ValueError("needs one observed value at least")
    error = actual[seen] - mean[seen]
    errors = {"mae": float(np.abs(error).mean()), "mse": float((error**2).mean())}
    if quantiles:
        losses = []
        for level, forecast in quantiles.items():
            gap = actual[seen] - forecast[seen]
            losses.append(np.maximum(level * gap, (level - 1) * gap).mean())
        errors["quantile_loss"] = float(np.mean(losses))
        for low, high in level_pairs(tuple(quantiles)):
            inside = (actual[seen] >= quantiles[low][seen]) & (actual[seen] <= quantiles[high][seen])
            errors[f"coverage_{round(100 * (high - low))}"] = float(inside.mean())
    if naive is not None:
        errors["naive_mae"] = float(np.abs(actual[seen] - naive[seen]).mean())
        errors["mae_ratio"] = errors["mae"] / errors["naive_mae"] if errors["naive_mae"] else float("inf")
    return errors


def level_pairs(levels: Sequence[float]) -> list[tuple[float, float]]:
    """The pairs of levels that leave out equally much below and above, the widest first."""
    return [(low, high) for low in sorted(levels) for high in levels if low < high and isclose(low + high, 1.0)]


def seasonal_naive(history: npt.NDArray[np.float64], horizon: int, season_steps: int) -> npt.NDArray[np.float64]:
    """The last whole season again and again: float64 [horizon, targets] from a history [steps, targets] of one season
    or more."""
    if len(history) < season_steps:
        raise ValueError(f"needs {season_steps} steps of history, got {len(history)}")
    season = history[len(history) - season_steps :]
    return season[np.arange(horizon) % season_steps]


def _f1(hits: int, num_predicted: int, num_expected: int) -> float:
    total = num_predicted + num_expected
    return 2 * hits / total if total else 0.0
