"""Channels learned by the same weights: each answers in the wide network as it does alone."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
import torch

from conveyor.features.series import SeriesEncoder
from conveyor.nn.models import SeriesForecaster
from conveyor.spec import ForecastSpec, RecurrentSpec, SeriesSpec
from conveyor.training.channels import Channels, one_channel, shared_spec, side_by_side
from conveyor.training.examples import SeriesTable


def wide_spec(**recurrent: Any) -> ForecastSpec:
    names = ("a", "b", "c")
    return ForecastSpec(
        format_version=1,
        name="tiny",
        description="A tiny model.",
        license="CC0-1.0",
        recurrent=RecurrentSpec(hidden=3, **recurrent),
        task="forecast",
        series=SeriesSpec(features=names, targets=names, frequency="h", calendar=("time_of_day",), half_life_steps=5),
        horizon=4,
        default_horizon=2,
        quantiles=(0.1, 0.9),
        history=9,
    )


@pytest.mark.parametrize("recurrent", [{}, {"layers": 2}, {"cell": "gru"}])
def test_a_channel_is_forecast_in_company_as_alone(recurrent: dict[str, Any]) -> None:
    """Missing values and the calendar included; no channel hears of another."""
    spec = wide_spec(**recurrent)
    torch.manual_seed(0)
    narrow = SeriesForecaster(one_channel(spec)).eval()
    wide = side_by_side(narrow, spec)
    values = np.random.default_rng(1).standard_normal((9, 3)) * [1, 10, 100]
    values[4, 1] = np.nan
    start = datetime(2024, 1, 1, tzinfo=UTC)
    lengths = torch.tensor([9])
    with torch.no_grad():
        together = wide.predict(
            torch.from_numpy(SeriesEncoder(spec.series).encode(values, start).inputs)[None], lengths
        )
        for channel in range(3):
            encoded = SeriesEncoder(one_channel(spec).series).encode(values[:, [channel]], start)
            alone = narrow.predict(torch.from_numpy(encoded.inputs)[None], lengths)
            torch.testing.assert_close(alone["forecast"][0, :, 0], together["forecast"][0, :, channel])
    assert shared_spec(spec) == wide.spec


def test_a_table_is_taken_apart_in_standard_units() -> None:
    """Each column with the mean and deviation of the part that was measured; one that stands still keeps its unit."""
    measured = SeriesTable(("a", "b"), np.array([[1.0, 5.0], [3.0, 5.0]]), datetime(2024, 1, 1, tzinfo=UTC), "h")
    first, second = Channels.of(measured).apart(SeriesTable(("a", "b"), np.array([[5.0, 6.0]])))
    assert ([[3.0]], [[1.0]]) == (first.values.tolist(), second.values.tolist())
    assert ("value",) == first.columns
