"""A linear forecaster: a teacher whose forecasts have no noise in them.

One matrix for all series takes the last steps, less the very last value, to the next ones (NLinear of Zeng et al. 2023,
"Are transformers effective for time series forecasting?", fitted by ridge regression instead of descent).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["LinearForecaster"]

_STRIDE = 3  # steps between two windows that are learned from
_PENALTY = 0.03  # of the mean squared input, for each window

_Array = npt.NDArray[np.float64]


class LinearForecaster:
    """Fitted when made.

    Args:
        series: Each float64 [steps], standardised; windows with a missing value are left out.
        lookback: Steps a forecast is made from.
        horizon: Steps forecast.

    Raises:
        ValueError: No series has a window.
    """

    def __init__(self, series: Sequence[_Array], lookback: int, horizon: int) -> None:
        self._lookback = lookback
        windows = [
            np.lib.stride_tricks.sliding_window_view(one, lookback + horizon)[::_STRIDE]
            for one in series
            if len(one) >= lookback + horizon
        ]
        if not windows:
            raise ValueError(f"no series has {lookback + horizon} steps")
        joined = np.concatenate(windows)
        joined = joined[np.isfinite(joined).all(axis=1)]
        shifted = joined - joined[:, [lookback - 1]]
        past, ahead = shifted[:, :lookback], shifted[:, lookback:]
        penalty = _PENALTY * float((past**2).sum()) / lookback
        system = past.T @ past + penalty * np.eye(lookback)
        self._weights = np.asarray(np.linalg.solve(system, past.T @ ahead), np.float64)

    def forecast(self, values: _Array, steps: npt.NDArray[np.int64]) -> _Array:
        """Forecasts from some steps of a series.

        Args:
            values: float64 [steps].
            steps: The steps to forecast from, each `lookback - 1` or later.

        Returns:
            float64 [len(steps), horizon]; NaN where a value that is needed is missing.
        """
        past = values[steps[:, None] + np.arange(1 - self._lookback, 1)]
        last = past[:, [-1]]
        found: _Array = (past - last) @ self._weights + last
        return found
