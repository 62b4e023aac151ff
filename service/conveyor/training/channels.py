"""A forecaster of one series made one of many: the same weights for each channel, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from conveyor.nn.models import SeriesForecaster
from conveyor.spec import ForecastSpec
from conveyor.training.examples import SeriesTable

__all__ = ["Channels", "one_channel", "shared_spec", "side_by_side"]


@dataclass(frozen=True, slots=True, eq=False)
class Channels:
    """A table of many columns taken apart into standardised series of one, so that errors in all of them count alike.

    mean, deviation: float64 [columns], of the training part.
    """

    mean: npt.NDArray[np.float64]
    deviation: npt.NDArray[np.float64]

    @classmethod
    def of(cls, table: SeriesTable) -> Self:
        """Measures a training part; a column that stands still is left as it is but for its mean."""
        deviation = np.nanstd(table.values, axis=0)
        return cls(np.nanmean(table.values, axis=0), np.where(deviation > 0, deviation, 1.0))

    def apart(self, table: SeriesTable) -> list[SeriesTable]:
        """Each column as a table of its own, column `value`."""
        standardised = (table.values - self.mean) / self.deviation
        return [SeriesTable(("value",), column[:, None], table.start, table.frequency) for column in standardised.T]


def one_channel(spec: ForecastSpec) -> ForecastSpec:
    """The description of the network that is learned, for one feature, which is the target; the rest as in `spec`."""
    series = spec.series.model_copy(update={"features": ("value",), "targets": ("value",)})
    return spec.model_copy(update={"series": series})


def shared_spec(spec: ForecastSpec) -> ForecastSpec:
    """The description of the network that is shipped: as many units for each channel as `spec` says."""
    units = len(spec.series.features) * spec.recurrent.hidden
    return spec.model_copy(update={"recurrent": spec.recurrent.model_copy(update={"hidden": units})})


def side_by_side(model: SeriesForecaster, spec: ForecastSpec) -> SeriesForecaster:
    """The network of many channels that computes for each what `model` computes for one.

    Its matrices are block diagonal, so that an ordinary layer runs it: no channel sees another, all see the calendar.

    Args:
        model: Of `one_channel(spec)`; unchanged.
        spec: Its targets are its features, in the same order.
    """
    channels = len(spec.series.features)
    wide = SeriesForecaster(shared_spec(spec))
    narrow = model.state_dict()
    with torch.no_grad():
        for name, target in wide.state_dict().items():
            target.zero_()
            source = narrow[name]
            if name.startswith("head."):
                _spread_head(source, target, spec, channels)
            elif "layers.0." in name and "weight_ih" in name:
                _spread_input(source, target, spec, channels)
            else:
                _spread_gates(source, target, spec.recurrent.hidden, channels)
    return wide.eval()


def _spread_gates(source: Tensor, target: Tensor, hidden: int, channels: int) -> None:
    """[gates × hidden, …] → [gates × channels × hidden, …]; a matrix takes its channel's columns only."""
    gates = source.shape[0] // hidden
    rows = target.view(gates, channels, hidden, *target.shape[1:])
    blocks = source.view(gates, hidden, *source.shape[1:])
    for channel in range(channels):
        if source.ndim == 1:
            rows[:, channel] = blocks
        else:
            width = source.shape[1]
            rows[:, channel, :, channel * width : (channel + 1) * width] = blocks


def _spread_input(source: Tensor, target: Tensor, spec: ForecastSpec, channels: int) -> None:
    """The same for the first layer, whose columns are values, presence of the values, and the calendar for all."""
    hidden = spec.recurrent.hidden
    gates = source.shape[0] // hidden
    rows, blocks = target.view(gates, channels, hidden, -1), source.view(gates, hidden, -1)
    for channel in range(channels):
        rows[:, channel, :, channel] = blocks[:, :, 0]
        rows[:, channel, :, channels + channel] = blocks[:, :, 1]
        rows[:, channel, :, 2 * channels :] = blocks[:, :, 2:]


def _spread_head(source: Tensor, target: Tensor, spec: ForecastSpec, channels: int) -> None:
    """Rows are horizon × targets × (1 + quantiles)."""
    rows = target.view(spec.horizon, channels, 1 + len(spec.quantiles), *target.shape[1:])
    blocks = source.view(spec.horizon, 1 + len(spec.quantiles), *source.shape[1:])
    for channel in range(channels):
        if source.ndim == 1:
            rows[:, channel] = blocks
        else:
            width = source.shape[1]
            rows[:, channel, :, channel * width : (channel + 1) * width] = blocks
