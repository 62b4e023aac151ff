"""series → forecast: pinball loss for the quantiles and smooth L1 for the mean, at many steps of random windows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from conveyor.errors import InvalidArgument
from conveyor.features.series import SeriesEncoder
from conveyor.nn.models import SeriesForecaster
from conveyor.spec import ForecastSpec
from conveyor.training.examples import SeriesTable
from conveyor.training.measures import forecast_errors, seasonal_naive
from conveyor.training.recipe import ForecastTraining

__all__ = ["ForecastBatch", "ForecastObjective", "origins"]

_SMOOTH = 0.2  # standard deviations within which the mean's loss is quadratic: it minds outliers less than MSE


@dataclass(frozen=True, slots=True, eq=False)
class ForecastBatch:
    """Windows and what came after some of their steps.

    inputs: float32 [rows, steps, width]; lengths: int64 [rows].
    steps: int64 [origins], the steps to forecast from.
    targets: float32 [rows, origins, horizon, targets], standardised as of their origin; NaN where missing.
    """

    inputs: Tensor
    lengths: Tensor
    steps: Tensor
    targets: Tensor


class ForecastObjective:
    """Learns from random windows of `train`; scored by the MAE relative to the seasonal naive forecast over `dev`.

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
        self._dev = dev

    def num_batches(self) -> int:
        return self._training.batches

    def epoch(self, rng: np.random.Generator) -> Iterator[ForecastBatch]:
        for _ in range(self._training.batches):
            yield self._draw(rng)

    def loss(self, model: SeriesForecaster, batch: ForecastBatch) -> Tensor:
        outputs = model.forward_steps(batch.inputs, batch.lengths, batch.steps)
        seen = torch.isfinite(batch.targets)
        actual = torch.where(seen, batch.targets, 0.0)[..., None]
        mean = F.smooth_l1_loss(outputs[..., :1], actual, reduction="none", beta=_SMOOTH)
        levels = torch.tensor(self._spec.quantiles, dtype=outputs.dtype, device=outputs.device)
        gap = actual - outputs[..., 1:]
        pinball = torch.maximum(levels * gap, (levels - 1) * gap)
        weight = seen[..., None]
        return ((mean.mean(-1, keepdim=True) + pinball.mean(-1, keepdim=True)) * weight).sum() / weight.sum().clamp(1)

    def measure(self, model: SeriesForecaster) -> Mapping[str, float]:
        measures: dict[str, float] = {}
        for name, tables in self._dev.items():
            errors = self._errors(model, tables)
            measures |= {f"{name}: {measure}": value for measure, value in errors.items()}
        ratios = [value for name, value in measures.items() if name.endswith(": mae_ratio")]
        return {"score": 1.0 - float(np.mean(ratios))} | measures

    def _draw(self, rng: np.random.Generator) -> ForecastBatch:
        training, horizon = self._training, self._spec.horizon
        steps = np.sort(
            rng.choice(np.arange(training.warm_steps, training.window_steps), training.origins, replace=False)
        )
        inputs, targets = [], []
        for _ in range(training.rows):
            table = self._train[rng.choice(len(self._train), p=self._weights / self._weights.sum())]
            first = int(rng.integers(len(table.values) - self._needed + 1))
            values = table.values[first : first + self._needed]
            hidden = rng.random(values.shape) < training.missing * rng.random()
            start = None if rng.random() < training.calendar_dropout else table.time_of(first)
            known = np.where(hidden, np.nan, values)[: training.window_steps]
            encoded = self._encoder.encode(known, start)
            after = steps[:, None] + 1 + np.arange(horizon)
            ahead = values[:, self._targets][after]
            standard = self._encoder.standardise(
                ahead, encoded.loc[steps][:, None, :], encoded.scale[steps][:, None, :]
            )
            inputs.append(encoded.inputs)
            targets.append(standard.astype(np.float32))
        return ForecastBatch(
            torch.from_numpy(np.stack(inputs)).to(self._device),
            torch.full((training.rows,), training.window_steps, dtype=torch.int64, device=self._device),
            torch.from_numpy(steps).to(self._device),
            torch.from_numpy(np.stack(targets)).to(self._device),
        )

    def _errors(self, model: SeriesForecaster, tables: Sequence[SeriesTable]) -> dict[str, float]:
        spec, season = self._spec, self._training.season_steps
        actual, naive, outputs = [], [], []
        for table in tables:
            for origin in origins(len(table.values), spec.history, spec.horizon, self._training.dev_stride):
                history = table.values[origin - spec.history : origin]
                encoded = self._encoder.encode(history, table.time_of(origin - spec.history))
                inputs = torch.from_numpy(encoded.inputs)[None].to(self._device)
                lengths = torch.tensor([len(history)], device=self._device)
                standard = model.predict(inputs, lengths)["forecast"][0].cpu().numpy().astype(np.float64)
                outputs.append(self._encoder.restore(standard, encoded.loc[-1], encoded.scale[-1]))
                actual.append(table.values[origin : origin + spec.horizon, self._targets])
                naive.append(seasonal_naive(history[:, self._targets], spec.horizon, season))
        stacked = np.stack(outputs)
        quantiles = {level: stacked[..., index] for index, level in enumerate(spec.quantiles, 1)}
        return forecast_errors(np.stack(actual), stacked[..., 0], quantiles, np.stack(naive))


def origins(steps: int, history: int, horizon: int, stride: int) -> range:
    """The steps of a series at which a forecast begins so that `history` steps lie before and `horizon` after."""
    return range(history, steps - horizon + 1, stride)
