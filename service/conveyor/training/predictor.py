"""A package's answers without a server: the gateway's codec around the network, one item at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from conveyor.domain import Forecast, Sentiment, Series, Tagging
from conveyor.gateway.checks import check_horizon, check_levels
from conveyor.gateway.codecs import ForecastCodec, SentimentCodec, build_codec
from conveyor.gateway.limits import Limits
from conveyor.gateway.series_input import series_from_nested
from conveyor.nn.models import SequenceClassifier, SequenceTagger, SeriesForecaster
from conveyor.spec import PackageSpec
from conveyor.wire.messages import Inputs

__all__ = ["Model", "Predictor", "result_object"]

Model = SequenceClassifier | SequenceTagger | SeriesForecaster


class Predictor:
    """Answers as the server would, on the CPU, without batching.

    Args:
        directory: Holds `vocab.txt`, where the task has text.
        model: On the CPU, in evaluation mode.
    """

    def __init__(self, spec: PackageSpec, directory: Path, model: Model) -> None:
        self._model = model
        self._codec = build_codec(spec, directory)

    def answer(self, sample: Mapping[str, Any]) -> Sentiment | Tagging | Forecast:
        """The result for a line of `samples.jsonl`: its `input` and, for a forecast, `horizon` and `quantiles`.

        Raises:
            InvalidArgument: A series, a horizon or a level is not acceptable.
        """
        codec, item = self._codec, sample["input"]
        if isinstance(codec, SentimentCodec):
            return codec.decode(self._run(codec.encode([item]).inputs))
        if isinstance(codec, ForecastCodec):
            horizon = check_horizon(sample.get("horizon"), codec.spec)
            levels = check_levels(sample.get("quantiles"), codec.spec, Limits())
            row, series = codec.encode(_series(item))
            return codec.decode(series, self._run(row), horizon, levels)
        row, text = codec.encode(item)
        # the arrays of a stepwise result have no axis of rows
        return codec.decode(text, {name: array[0] for name, array in self._run(row).items()})

    def num_steps(self, sample: Mapping[str, Any]) -> int:
        """Steps of the row of a sample."""
        codec, item = self._codec, sample["input"]
        if isinstance(codec, SentimentCodec):
            return codec.encode([item]).lengths[0]
        row, _ = codec.encode(_series(item)) if isinstance(codec, ForecastCodec) else codec.encode(item)
        return len(row)

    def _run(self, row: Inputs) -> dict[str, npt.NDArray[np.generic]]:
        with torch.no_grad():
            outputs = self._model.predict(torch.from_numpy(row)[None], torch.tensor([len(row)]))
        return {name: tensor.numpy() for name, tensor in outputs.items()}


def result_object(result: Sentiment | Tagging | Forecast) -> dict[str, object]:
    """A result as it stands in the HTTP answer: fields that are None are left out."""
    return {name: value for name, value in dataclasses.asdict(result).items() if value is not None}


def _series(item: Mapping[str, Any]) -> Series:
    return series_from_nested(item["values"], item.get("start"), item.get("frequency"), "input")
