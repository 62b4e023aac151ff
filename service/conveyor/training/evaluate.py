"""Scoring a package with the field's measures, through whatever answers for it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from conveyor.domain import Forecast, Sentiment, Series, Tagging
from conveyor.errors import InvalidArgument
from conveyor.features.tags import WORD, spans_from_tags
from conveyor.spec import ForecastSpec, PackageSpec, SentimentSpec, TagSpec, Task
from conveyor.training.examples import Example, LabelledText, SeriesTable, TaggedTokens, only
from conveyor.training.measures import classification, forecast_errors, seasonal_naive, spans_f1, tagging_accuracy
from conveyor.training.readers.catalogue import READERS, detect_format, read_data_file
from conveyor.training.readers.series import slice_series
from conveyor.training.recipe import ForecastRecipe, Format, Recipe

__all__ = ["Predict", "dev_parts", "deviations", "evaluate", "read_part"]

_STRIDE = 37  # half-hours or hours: coprime to a day, so that the origins meet every time of day


class Predict(Protocol):
    """Answers for the package under test, in the order of the items; any number of items."""

    def sentiment(self, texts: Sequence[str]) -> Sequence[Sentiment]:
        """One answer a text."""

    def tag(self, items: Sequence[str] | Sequence[Sequence[str]]) -> Sequence[Tagging]:
        """One answer a text, or a list of tokens; all of one kind."""

    def forecast(self, series: Sequence[Series]) -> Sequence[Forecast]:
        """One answer a series, with the model's default horizon and quantiles."""


def read_part(path: Path, task: Task, file_format: Format | None = None) -> list[Example]:
    """Reads the examples of one file; without a format, in the one it seems to have.

    Raises:
        InvalidArgument: The file does not exist, is of no such format, or seems to have none that fits the task.
    """
    return list(READERS[file_format or detect_format(path, task)](path))


def dev_parts(recipe: Recipe, data_dir: Path) -> dict[str, list[Example]]:
    """The development parts of a recipe by name, verified by their checksums.

    Raises:
        InvalidArgument: A file is missing or another one.
    """
    parts: dict[str, list[Example]] = {}
    for data in recipe.data:
        if data.part == "dev":
            parts.setdefault(f"{data.name} {data.split}", []).extend(read_data_file(data, data_dir))
    return parts


def deviations(recipe: Recipe, data_dir: Path) -> npt.NDArray[np.float64] | None:
    """The targets' standard deviations in the training part, float64 [targets], by which errors of several of them are
    made comparable; None for another task. Of several training files the first counts.

    Raises:
        InvalidArgument: A file is missing or another one.
    """
    if not isinstance(recipe, ForecastRecipe):
        return None
    first = next(data for data in recipe.data if data.part == "train")
    (table,) = only(read_data_file(first, data_dir), SeriesTable)
    targets = [recipe.series.features.index(name) for name in recipe.series.targets]
    return np.asarray(np.nanstd(table.values[:, targets], axis=0), np.float64)


def evaluate(
    spec: PackageSpec,
    examples: Sequence[Example],
    predict: Predict,
    deviation: npt.NDArray[np.float64] | None = None,
) -> dict[str, float]:
    """Scores a package: accuracy and macro F1 for sentiment; accuracy for plain tags given the data's tokens; F1 of
    spans for entities given its tokens, and for words given its text; MAE, MSE and quantile loss beside the seasonal
    naive forecast (last week's, where a week is a whole number of steps) for forecasts from origins all over a series.

    Args:
        deviation: Of a forecast's targets; with it the squared error in standard units is measured too.

    Raises:
        InvalidArgument: The examples are of another task, or a series is too short to forecast from.
    """
    match spec:
        case SentimentSpec():
            return _sentiment(spec, only(examples, LabelledText), predict)
        case TagSpec():
            return _tags(spec, only(examples, TaggedTokens), predict)
        case ForecastSpec():
            return _forecast(spec, only(examples, SeriesTable), predict, deviation)


def _sentiment(spec: SentimentSpec, examples: Sequence[LabelledText], predict: Predict) -> dict[str, float]:
    predicted = [answer.label for answer in predict.sentiment([example.text for example in examples])]
    # the public sets write classes as numbers, in the order of the package's labels
    names = {str(index): label for index, label in enumerate(spec.labels)}
    return classification([names.get(example.label, example.label) for example in examples], predicted)


def _tags(spec: TagSpec, examples: Sequence[TaggedTokens], predict: Predict) -> dict[str, float]:
    if set(spec.labels) <= set("BMESO"):
        answers = predict.tag([example.raw_text for example in examples])
        return spans_f1(
            [[(start, end, WORD) for start, end in example.word_spans()] for example in examples],
            [[(span.start, span.end, span.label) for span in answer.spans] for answer in answers],
        )
    answers = predict.tag([list(example.tokens) for example in examples])
    expected = [example.tags for example in examples]
    predicted = [[token.tag for token in answer.tokens] for answer in answers]
    if spec.scheme == "plain":
        return tagging_accuracy(expected, predicted)
    return tagging_accuracy(expected, predicted) | spans_f1(
        [spans_from_tags(tags, spec.scheme) for tags in expected],
        [spans_from_tags(tags, spec.scheme) for tags in predicted],
    )


def _forecast(
    spec: ForecastSpec,
    examples: Sequence[SeriesTable],
    predict: Predict,
    deviation: npt.NDArray[np.float64] | None,
) -> dict[str, float]:
    horizon, season = spec.default_horizon, _season_steps(spec.series.frequency)
    history = max(spec.history, season)
    series: list[Series] = []
    actual: list[npt.NDArray[np.float64]] = []
    naive: list[npt.NDArray[np.float64]] = []
    targets = [spec.series.features.index(name) for name in spec.series.targets]
    for example in examples:
        table = slice_series(example, _columns(example, spec), None, None)
        for origin in range(history, len(table.values) - horizon + 1, _STRIDE):
            past = table.values[origin - history : origin]
            series.append(Series(past, table.time_of(origin - history)))
            actual.append(table.values[origin : origin + horizon][:, targets])
            naive.append(seasonal_naive(past[:, targets], horizon, season))
    if not series:
        raise InvalidArgument(f"a series needs {history + horizon} steps: history {history}, horizon {horizon}")
    answers = predict.forecast(series)
    quantiles = {level: np.array([answer.quantiles[repr(level)] for answer in answers]) for level in spec.quantiles}
    means = np.array([answer.mean for answer in answers])
    errors = forecast_errors(np.stack(actual), means, quantiles, np.stack(naive))
    if deviation is not None:
        errors[f"standardised_mse at {horizon}"] = float(np.nanmean(((np.stack(actual) - means) / deviation) ** 2))
    return errors


def _columns(table: SeriesTable, spec: ForecastSpec) -> Sequence[str]:
    """The table's columns that are the package's features, whatever their case; all where the file names none."""
    by_name = {name.lower(): name for name in table.columns}
    wanted = [by_name.get(name.lower()) for name in spec.series.features]
    if None not in wanted:
        return [name for name in wanted if name is not None]
    if len(table.columns) == len(spec.series.features):
        return table.columns
    raise InvalidArgument(f"the columns {list(table.columns)} lack some of the features {list(spec.series.features)}")


def _season_steps(frequency: str) -> int:
    """Steps in a week where that is a whole number, else one, which makes the last value the reference."""
    first, second = pd.date_range("2001-01-01", periods=2, freq=frequency)
    whole, rest = divmod(timedelta(days=7), (second - first).to_pytimedelta())
    return whole if whole > 1 and not rest else 1
