"""The items of one request: checked and made rows of, and results made of what comes back, for each task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar, Final, Generic, Self, TypeVar

from conveyor.domain import Forecast, Sentiment, Series, Tagging
from conveyor.errors import InvalidArgument
from conveyor.gateway.checks import check_horizon, check_levels, check_series, check_text, check_texts, check_tokens
from conveyor.gateway.codecs import ForecastCodec, ForecastItem, SentimentCodec, TagCodec, TaggedText
from conveyor.gateway.limits import Limits
from conveyor.gateway.posted import RowResult
from conveyor.wire.messages import Inputs, Rows

__all__ = ["ForecastItems", "Items", "SentimentItems", "TagItems"]

ContextT = TypeVar("ContextT")
ResultT = TypeVar("ResultT")

# What takes about a millisecond on the way out, to decode and to write: steps or rows, and numbers in them.
_QUICK_STEPS: Final = 512
_QUICK_VALUES: Final = 4096


class Items(ABC, Generic[ResultT]):
    """The items of one request and the codec of the model that answers them.

    size: code points and values in them.
    """

    __slots__ = ("count", "size")

    # Where they stand in the request.
    field: ClassVar[str]

    def __init__(self, count: int, size: int) -> None:
        self.count = count
        self.size = size

    @abstractmethod
    def encode(self) -> Rows:
        """Checks and encodes them, a row an item; called once. In a thread if they are large.

        Raises:
            InvalidArgument: An item is not what the model takes.
        """

    @classmethod
    def encode_together(cls, several: Sequence[Self]) -> Sequence[Rows] | None:  # noqa: ARG003  not here
        """The rows of several requests for one model, where that takes less than to encode each; None where it does
        not, or if one of them is not what the model takes."""
        return None

    @abstractmethod
    def decode(self, results: Sequence[RowResult]) -> Sequence[ResultT]:
        """The results of the rows that were encoded, one an item."""

    @abstractmethod
    def decodes_quickly(self, rows: Rows) -> bool:
        """Whether the event loop may decode what comes back for these rows."""


class SentimentItems(Items[Sentiment]):
    """Texts to classify."""

    __slots__ = ("_codec", "_limits", "_texts")

    field = "inputs"

    def __init__(self, codec: SentimentCodec, texts: Sequence[str], limits: Limits) -> None:
        super().__init__(len(texts), sum(map(len, texts)))
        self._codec = codec
        self._texts = texts
        self._limits = limits

    def encode(self) -> Rows:
        """As `Items.encode`."""
        check_texts(self._texts, self.field, self._limits)
        return self._codec.encode(self._texts)

    @classmethod
    def encode_together(cls, several: Sequence[Self]) -> Sequence[Rows] | None:
        """As `Items.encode_together`."""
        first = several[0]
        texts = [text for items in several for text in items._texts]
        try:
            check_texts(texts, cls.field, first._limits)
        except InvalidArgument:
            return None
        return first._codec.encode(texts).split([items.count for items in several])

    def decode(self, results: Sequence[RowResult]) -> Sequence[Sentiment]:
        """As `Items.decode`."""
        return list(map(self._codec.decode, results))

    def decodes_quickly(self, rows: Rows) -> bool:
        """As `Items.decodes_quickly`."""
        count = len(rows.lengths)
        return count <= _QUICK_STEPS and count * len(self._codec.spec.labels) <= _QUICK_VALUES


class TagItems(Items[Tagging]):
    """Texts or given tokens to tag."""

    __slots__ = ("_codec", "_inputs", "_limits", "_texts")

    field = "inputs"

    def __init__(self, codec: TagCodec, inputs: Sequence[str | Sequence[str]], limits: Limits) -> None:
        size = sum([len(item) if isinstance(item, str) else sum(map(len, item)) for item in inputs])
        super().__init__(len(inputs), size)
        self._codec = codec
        self._inputs = inputs
        self._limits = limits
        self._texts: Sequence[TaggedText] = ()

    def encode(self) -> Rows:
        """As `Items.encode`."""
        for index, item in enumerate(self._inputs):
            if isinstance(item, str):
                check_text(item, f"{self.field}[{index}]", self._limits)
            else:
                check_tokens(item, f"{self.field}[{index}]", self._limits)
        rows, self._texts = _together(map(self._codec.encode, self._inputs))
        return rows

    def decode(self, results: Sequence[RowResult]) -> Sequence[Tagging]:
        """As `Items.decode`."""
        return list(map(self._codec.decode, self._texts, results))

    def decodes_quickly(self, rows: Rows) -> bool:
        """As `Items.decodes_quickly`."""
        return sum(rows.lengths) <= _QUICK_STEPS


class ForecastItems(Items[Forecast]):
    """Series to forecast.

    Args:
        horizon, quantiles: None takes the model's default horizon and its trained quantile levels.

    Raises:
        InvalidArgument: The model does not forecast so far, or such levels.
    """

    __slots__ = ("_codec", "_encoded", "_levels", "_limits", "_series", "_steps")

    field = "series"

    def __init__(
        self,
        codec: ForecastCodec,
        series: Sequence[Series],
        horizon: int | None,
        quantiles: Sequence[float] | None,
        limits: Limits,
    ) -> None:
        super().__init__(len(series), sum([item.values.size for item in series]))
        self._codec = codec
        self._series = series
        self._steps = check_horizon(horizon, codec.spec)
        self._levels = check_levels(quantiles, codec.spec, limits)
        self._limits = limits
        self._encoded: Sequence[ForecastItem] = ()

    def encode(self) -> Rows:
        """As `Items.encode`."""
        for index, item in enumerate(self._series):
            check_series(item, self._codec.spec, f"{self.field}[{index}]", self._limits, self._steps)
        rows, self._encoded = _together(map(self._codec.encode, self._series))
        return rows

    def decode(self, results: Sequence[RowResult]) -> Sequence[Forecast]:
        """As `Items.decode`."""
        return [
            self._codec.decode(item, result, self._steps, self._levels)
            for item, result in zip(self._encoded, results, strict=True)
        ]

    def decodes_quickly(self, rows: Rows) -> bool:
        """As `Items.decodes_quickly`."""
        values_a_row = self._steps * len(self._codec.spec.series.targets) * (1 + len(self._levels))
        return len(rows.lengths) * values_a_row <= _QUICK_VALUES


def _together(encoded: Iterable[tuple[Inputs, ContextT]]) -> tuple[Rows, Sequence[ContextT]]:
    parts, contexts = zip(*encoded, strict=True)
    return Rows.of(parts), contexts
