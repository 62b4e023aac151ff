"""series → forecast: pinball loss for the quantiles and smooth L1 for the mean, at many steps of random windows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from conveyor.errors import InvalidArgument
from conveyor.features.series import SeriesEncoder
from conveyor.nn.models import SeriesForecaster
from conveyor.spec import ForecastSpec
from conveyor.training.examples import SeriesTable
from conveyor.training.linear import LinearForecaster
from conveyor.training.measures import forecast_errors, level_pairs, seasonal_naive
from conveyor.training.recipe import ForecastTraining

__all__ = ["ForecastBatch", "ForecastObjective", "origins"]

_DEV_ROWS = 64  # histories scored at once


@dataclass(frozen=True, slots=True, eq=False)
class ForecastBatch:
    """Windows and what came after some of their steps.

    inputs: float32 [rows, steps, width]; lengths: int64 [rows].
    steps: int64 [origins], the steps to forecast from.
    targets: float32 [rows, origins, horizon, targets], standardised as of their origin; NaN where missing.
    weights: float32 [rows, origins, 1, targets], what an error of one deviation counts.
    guides: float32, as `targets`, what the teacher forecasts; empty without one.
    """

    inputs: Tensor
    lengths: Tensor
    steps: Tensor
    targets: Tensor
    weights: Tensor
    guides: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class _Forecasts:
    """Forecasts from the origins of a part.

    outputs: float64 [origins, horizon, targets, 1 + quantiles], in the units of the series.
    actual, naive: float64 [origins, horizon, targets], what came and the seasonal naive forecast.
    """

    outputs: npt.NDArray[np.float64]
    actual: npt.NDArray[np.float64]
    naive: npt.NDArray[np.float64]


class ForecastObjective:
    """Learns from random windows of `train`.

    Scored over `dev` by the MAE relative to the seasonal naive forecast, or by the squared error over the measured
    horizons, standardised by the training part.

    Every series of `dev` begins with `spec.history` steps that are history only; its forecasts begin after them.
    """

    def __init__(
        self,
        spec: ForecastSpec,
        train: Sequence[SeriesTable],
        dev: Mapping[str, Sequence[SeriesTable]],
        training: ForecastTraining,
        device: torch.device,
    ) -> None:
        self._spec, self._training, self._device = spec, training, device
        self._encoder = SeriesEncoder(spec.series)
        self._targets = [spec.series.features.index(name) for name in spec.series.targets]
        self._needed = training.window_steps + spec.horizon
        self._train = [table for table in train if len(table.values) >= self._needed]
        if not self._train:
            raise InvalidArgument(f"no training series has {self._needed} steps, a window and what comes after it")
        self._weights = np.array([len(table.values) - self._needed + 1 for table in self._train], dtype=np.float64)
        self._deviation = np.nanstd(np.concatenate([table.values[:, self._targets] for table in train]), axis=0)
        self._dev = dev
        self._teacher: LinearForecaster | None = None
        if training.teacher:
            columns = [column for table in train for column in (table.values[:, self._targets] / self._deviation).T]
            self._teacher = LinearForecaster(columns, training.warm_steps + 1, spec.horizon)

    def num_batches(self) -> int:
        return self._training.batches

    def epoch(self, rng: np.random.Generator) -> Iterator[ForecastBatch]:
        for _ in range(self._training.batches):
            yield self._draw(rng)

    def loss(self, model: SeriesForecaster, batch: ForecastBatch) -> Tensor:
        outputs = model.forward_steps(batch.inputs, batch.lengths, batch.steps)
        seen = torch.isfinite(batch.targets)
        actual = torch.where(seen, batch.targets, 0.0)[..., None]
        mean = F.smooth_l1_loss(outputs[..., :1], actual, reduction="none", beta=self._training.smooth)
        if self._teacher is not None:
            guides = torch.where(torch.isfinite(batch.guides), batch.guides, 0.0)[..., None]
            distance = F.smooth_l1_loss(outputs[..., :1], guides, reduction="none", beta=self._training.smooth)
            mean = torch.lerp(mean, distance, self._training.teacher)
        levels = torch.tensor(self._spec.quantiles, dtype=outputs.dtype, device=outputs.device)
        gap = actual - outputs[..., 1:]
        pinball = torch.maximum(levels * gap, (levels - 1) * gap)
        ahead = torch.arange(1, self._spec.horizon + 1, device=outputs.device, dtype=outputs.dtype)
        near = ahead**-self._training.near
        weight = seen[..., None] * batch.weights[..., None] * (near / near.mean())[:, None, None]
        return ((mean.mean(-1, keepdim=True) + pinball.mean(-1, keepdim=True)) * weight).sum() / weight.sum().clamp(1)

    def measure(self, model: SeriesForecaster) -> Mapping[str, float]:
        measures: dict[str, float] = {}
        for name, tables in self._dev.items():
            errors = self._errors(self._forecasts(model, tables))
            measures |= {f"{name}: {measure}": value for measure, value in errors.items()}
        main = ": mae_ratio" if self._training.score == "mae_ratio" else ": standardised_mse"
        counted = [value for name, value in measures.items() if main in name]
        return {"score": 1.0 - float(np.mean(counted))} | measures

    @torch.no_grad()
    def calibrate(self, model: SeriesForecaster) -> None:
        """Widens or narrows each pair of quantiles about the median so that what came in the development part lies
        between them as often as it should; the median, or without one the mean, stays."""
        levels = self._spec.quantiles
        centre = levels.index(0.5) + 1 if 0.5 in levels else 0
        found = [self._forecasts(model, tables) for tables in self._dev.values()]
        outputs = np.concatenate([forecasts.outputs for forecasts in found])
        gap = np.concatenate([forecasts.actual for forecasts in found]) - outputs[..., centre]
        shape = (-1, 1 + len(levels))
        for low, high in level_pairs(levels):
            below, above = levels.index(low) + 1, levels.index(high) + 1
            reach = np.where(gap < 0, outputs[..., below], outputs[..., above]) - outputs[..., centre]
            needed = np.abs(gap) / np.maximum(np.abs(reach), 1e-12)
            factor = float(np.quantile(needed[np.isfinite(gap)], high - low))
            for parameter in (model.head.weight, model.head.bias):
                rows = parameter.view(*shape, *parameter.shape[1:])
                for level in (below, above):
                    rows[:, level] = rows[:, centre] + factor * (rows[:, level] - rows[:, centre])

    def _draw(self, rng: np.random.Generator) -> ForecastBatch:
        training, horizon = self._training, self._spec.horizon
        steps = np.sort(
            rng.choice(np.arange(training.warm_steps, training.window_steps), training.origins, replace=False)
        )
        inputs, targets, weights, guides = [], [], [], []
        for _ in range(training.rows):
            table, first = self._window(rng)
            values = table.values[first : first + self._needed]
            if training.mixing and rng.random() < training.mixing:
                values = self._mixed(values, first, rng)
            hidden = rng.random(values.shape) < training.missing * rng.random()
            start = None if rng.random() < training.calendar_dropout else table.time_of(first)
            known = np.where(hidden, np.nan, values)[: training.window_steps]
            encoded = self._encoder.encode(known, start)
            after = steps[:, None] + 1 + np.arange(horizon)
            ahead = values[:, self._targets][after]
            scale = encoded.scale[steps][:, None, :]
            standard = self._encoder.standardise(ahead, encoded.loc[steps][:, None, :], scale)
            inputs.append(encoded.inputs)
            targets.append(standard.astype(np.float32))
            if self._teacher is not None:
                taught = [self._teacher.forecast(column, steps) for column in values[:, self._targets].T]
                guide = self._encoder.standardise(np.stack(taught, axis=-1), encoded.loc[steps][:, None, :], scale)
                guides.append(guide.astype(np.float32))
            in_series = training.weighting == "series"
            weights.append((scale / self._deviation if in_series else np.ones_like(scale)).astype(np.float32))
        return ForecastBatch(
            torch.from_numpy(np.stack(inputs)).to(self._device),
            torch.full((training.rows,), training.window_steps, dtype=torch.int64, device=self._device),
            torch.from_numpy(steps).to(self._device),
            torch.from_numpy(np.stack(targets)).to(self._device),
            torch.from_numpy(np.stack(weights)).to(self._device),
            torch.from_numpy(np.stack(guides)).to(self._device) if guides else torch.empty(0),
        )

    def _window(self, rng: np.random.Generator) -> tuple[SeriesTable, int]:
        """A series and the first step of a window in it, every window as probable as any other."""
        table = self._train[rng.choice(len(self._train), p=self._weights / self._weights.sum())]
        return table, int(rng.integers(len(table.values) - self._needed + 1))

    def _mixed(self, values: npt.NDArray[np.float64], first: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
        """The window plus up to as much, or less as much, of another one that begins at the same point of the season:
        few series become many, and what is learned leans to what holds for sums."""
        table, other = self._window(rng)
        season = self._training.season_steps
        other -= (other - first) % season
        if other < 0:
            other += season
        if other + self._needed > len(table.values):
            return values
        return values + rng.uniform(-1.0, 1.0) * table.values[other : other + self._needed]

    def _forecasts(self, model: SeriesForecaster, tables: Sequence[SeriesTable]) -> _Forecasts:
        spec, season = self._spec, self._training.season_steps
        encoded, actual, naive = [], [], []
        for table in tables:
            for origin in origins(len(table.values), spec.history, spec.horizon, self._training.dev_stride):
                history = table.values[origin - spec.history : origin]
                encoded.append(self._encoder.encode(history, table.time_of(origin - spec.history)))
                actual.append(table.values[origin : origin + spec.horizon, self._targets])
                naive.append(seasonal_naive(history[:, self._targets], spec.horizon, season))
        outputs = []
        for first in range(0, len(encoded), _DEV_ROWS):
            rows = encoded[first : first + _DEV_ROWS]
            inputs = torch.from_numpy(np.stack([row.inputs for row in rows])).to(self._device)
            lengths = torch.full((len(rows),), spec.history, device=self._device)
            standard = model.predict(inputs, lengths)["forecast"].cpu().numpy()
            outputs += [
                self._encoder.restore(one, row.loc[-1], row.scale[-1]) for one, row in zip(standard, rows, strict=True)
            ]
        return _Forecasts(np.stack(outputs), np.stack(actual), np.stack(naive))

    def _errors(self, forecasts: _Forecasts) -> dict[str, float]:
        outputs, actual = forecasts.outputs, forecasts.actual
        quantiles = {level: outputs[..., index] for index, level in enumerate(self._spec.quantiles, 1)}
        errors = forecast_errors(actual, outputs[..., 0], quantiles, forecasts.naive)
        standardised = ((actual - outputs[..., 0]) / self._deviation) ** 2
        for horizon in self._training.measured_horizons:
            errors[f"standardised_mse at {horizon}"] = float(np.nanmean(standardised[:, :horizon]))
        return errors


def origins(steps: int, history: int, horizon: int, stride: int) -> range:
    """The steps of a series at which a forecast begins so that `history` steps lie before and `horizon` after."""
    return range(history, steps - horizon + 1, stride)
