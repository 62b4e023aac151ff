"""Items of a request to rows of arrays, and rows of results back, for each task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from conveyor.domain import Forecast, Sentiment, Series, Span, Tagging, Token
from conveyor.errors import InvalidArgument, PackageError, Problem
from conveyor.features.series import SeriesEncoder
from conveyor.features.tags import spans_from_tags
from conveyor.features.text import TextEncoder
from conveyor.features.time import parse_frequency, timestamps
from conveyor.gateway.posted import RowResult
from conveyor.spec import ForecastSpec, PackageSpec, SentimentSpec, TagSpec
from conveyor.wire.messages import Inputs, Rows

__all__ = ["Codec", "ForecastCodec", "ForecastItem", "SentimentCodec", "TagCodec", "TaggedText", "build_codec"]


class SentimentCodec:
    """Texts to token ids; label probabilities to a `Sentiment`."""

    def __init__(self, spec: SentimentSpec, directory: Path) -> None:
        self.spec = spec
        self._encoder = TextEncoder.load(spec.text, directory)

    def encode(self, texts: Sequence[str]) -> Rows:
        """The rows of one text or more."""
        return Rows(*self._encoder.encode_all_ids(texts))

    def decode(self, result: RowResult) -> Sentiment:
        """The answer; `result["probabilities"]` is float32 [1, labels]."""
        probabilities = result["probabilities"][0].tolist()
        highest = max(probabilities)
        labels = self.spec.labels
        return Sentiment(labels[probabilities.index(highest)], highest, dict(zip(labels, probabilities, strict=True)))


@dataclass(frozen=True, slots=True, eq=False)
class TaggedText:
    """A text on its way, and where its tokens stand in it: int32 [steps] each.

    given: whether the tokens came from the caller.
    """

    text: str
    given: bool
    starts: npt.NDArray[np.int32]
    ends: npt.NDArray[np.int32]


class TagCodec:
    """Texts or given tokens to token ids; tags and their probabilities to a `Tagging`."""

    def __init__(self, spec: TagSpec, directory: Path) -> None:
        self.spec = spec
        self._encoder = TextEncoder.load(spec.text, directory)

    def encode(self, item: str | Sequence[str]) -> tuple[Inputs, TaggedText]:
        """The row of a text, or of given tokens, which are kept one to one."""
        if isinstance(item, str):
            text, encoded = item, self._encoder.encode(item)
        else:
            text, encoded = " ".join(item), self._encoder.encode_tokens(item)
        return encoded.ids, TaggedText(text, not isinstance(item, str), encoded.starts, encoded.ends)

    def decode(self, item: TaggedText, result: RowResult) -> Tagging:
        """The answer; `result` holds `tags` int32 [steps] and `scores` float32 [steps]."""
        text, starts, ends = item.text, item.starts.tolist(), item.ends.tolist()
        tags = [self.spec.labels[index] for index in result["tags"].tolist()]
        scores = result["scores"].tolist()
        tokens = [
            Token(text[start:end], start, end, tag, score)
            for start, end, tag, score in zip(starts, ends, tags, scores, strict=True)
        ]
        # Characters of a text with white space between them are not one word; words may form one entity, and given
        # tokens are joined by spaces of our own.
        breaks = None
        if self.spec.text.tokenizer == "character" and tokens and not item.given:
            breaks = [False, *(start > end for start, end in zip(starts[1:], ends, strict=False))]
        spans = [
            Span(text[starts[first] : ends[last - 1]], starts[first], ends[last - 1], label, min(scores[first:last]))
            for first, last, label in spans_from_tags(tags, self.spec.scheme, breaks)
        ]
        return Tagging(tokens, spans)


@dataclass(frozen=True, slots=True, eq=False)
class ForecastItem:
    """A series on its way: what restores the units and times of its forecast.

    loc, scale: float64 [targets], in force at the last step.
    """

    loc: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]
    steps: int
    start: datetime | None


class ForecastCodec:
    """Series to scaled steps; the network's standardised forecast to a `Forecast` in the caller's units."""

    def __init__(self, spec: ForecastSpec) -> None:
        self.spec = spec
        self._encoder = SeriesEncoder(spec.series)

    def encode(self, series: Series) -> tuple[Inputs, ForecastItem]:
        """The row of a series."""
        encoded = self._encoder.encode(series.values, series.start)
        item = ForecastItem(encoded.loc[-1], encoded.scale[-1], len(series.values), series.start)
        return encoded.inputs, item

    def decode(self, item: ForecastItem, result: RowResult, horizon: int, levels: Sequence[float]) -> Forecast:
        """The answer; `result["forecast"]` is float32 [1, max_horizon, targets, 1 + trained levels]."""
        (forecast,) = self.restore(
            result["forecast"][:, :horizon],
            item.loc[None],
            item.scale[None],
            [timestamps(item.start, self.spec.series.frequency, item.steps, horizon) if item.start else None],
            levels,
        )
        return forecast

    def restore(
        self,
        outputs: npt.NDArray[np.generic],
        loc: npt.NDArray[np.float64],
        scale: npt.NDArray[np.float64],
        times: Sequence[Sequence[str] | None],
        levels: Sequence[float],
    ) -> Sequence[Forecast]:
        """Many answers at once, each of the same bits as alone.

        Args:
            outputs: float32 [rows, horizon, targets, 1 + trained levels].
            loc, scale: float64 [rows, targets], in force at the last step of each.
            times: [rows], of the steps forecast.
        """
        restored = self._encoder.restore(outputs.astype(np.float64), loc, scale)
        # Quantiles that cross are put in order (Chernozhukov et al. 2010, "Quantile and probability curves
        # without crossing").
        trained = np.sort(restored[..., 1:], axis=-1)
        means = restored[..., 0].tolist()
        quantiles = {repr(level): _interpolate(trained, self.spec.quantiles, level).tolist() for level in levels}
        return [
            Forecast(mean, {level: rows[index] for level, rows in quantiles.items()}, self.spec.series.targets, time)
            for index, (mean, time) in enumerate(zip(means, times, strict=True))
        ]


Codec = SentimentCodec | TagCodec | ForecastCodec


def build_codec(spec: PackageSpec, directory: Path) -> Codec:
    """The codec of a package.

    Raises:
        PackageError: Its vocabulary or tokenizer is not acceptable.
    """
    if isinstance(spec, SentimentSpec):
        return SentimentCodec(spec, directory)
    if isinstance(spec, TagSpec):
        return TagCodec(spec, directory)
    try:
        parse_frequency(spec.series.frequency)
    except InvalidArgument as error:
        raise PackageError([Problem("model.toml", "series.frequency", error.message)]) from error
    return ForecastCodec(spec)


def _interpolate(trained: np.ndarray, levels: Sequence[float], level: float) -> np.ndarray:
    """Quantile `level` on the straight line between its trained neighbours; [..., horizon, targets]."""
    upper = int(np.searchsorted(levels, level))
    if levels[upper] == level:
        return trained[..., upper]
    lower = upper - 1
    weight = (level - levels[lower]) / (levels[upper] - levels[lower])
    return (1 - weight) * trained[..., lower] + weight * trained[..., upper]
