"""From items to results for a model that is already chosen: check, encode, compute, decode.

Requests and the samples of a package at load take this same path.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from conveyor.domain import Forecast, ModelKey, Sentiment, Series, Tagging
from conveyor.gateway.admission import Admission
from conveyor.gateway.call import Call
from conveyor.gateway.checks import check_horizon, check_levels, check_series, check_text, check_texts, check_tokens
from conveyor.gateway.codecs import ForecastCodec, ForecastItem, SentimentCodec, TagCodec, TaggedText
from conveyor.gateway.dispatcher import Dispatcher, RowResult
from conveyor.gateway.limits import Limits
from conveyor.gateway.pace import Pace
from conveyor.wire.messages import Inputs, Rows

__all__ = ["Answering", "size_of"]

ContextT = TypeVar("ContextT")
ResultT = TypeVar("ResultT")

# What should take longer to translate leaves the event loop, and what is larger, since a pace says nothing about what
# nobody has sent yet: words that were never seen take ten times as long as others.
_INLINE_S = 0.001
_INLINE_SIZE = 12_288
# What an item takes beside its content: as much as so many code points.
_ITEM_SIZE = 16
# Of a code point or a value, before any was seen: a tokenizer of words takes 0.1 to 0.5 µs, one of characters 0.6 to 3.
_UNIT_S = 1e-6
# What takes about a millisecond on the way out: steps or values.
_INLINE_STEPS = 512
_INLINE_VALUES = 16_384


def size_of(items: Sequence[str] | Sequence[Sequence[str]] | Sequence[str | Sequence[str]] | Sequence[Series]) -> int:
    """Code points and values in the items of a request."""
    size = 0
    for item in items:
        if isinstance(item, str):
            size += len(item)
        elif isinstance(item, Series):
            size += item.values.size
        else:
            size += sum(map(len, item))
    return size


class Answering:
    """Answers items, in order; `size` is always `size_of` them. Event loop only; may raise any request error."""

    def __init__(self, dispatcher: Dispatcher, admission: Admission, limits: Limits) -> None:
        self._dispatcher = dispatcher
        self._admission = admission
        self._limits = limits
        # Of encoding, by model: tokenizers are fifty times apart.
        self._paces: defaultdict[ModelKey, Pace] = defaultdict(lambda: Pace(_UNIT_S))

    def sentiment(
        self, call: Call, key: ModelKey, codec: SentimentCodec, inputs: Sequence[str], size: int
    ) -> Coroutine[Any, Any, Sequence[Sentiment]]:
        """Classifies texts."""

        def encode() -> tuple[Rows, None]:
            check_texts(inputs, "inputs", self._limits)
            return codec.encode(inputs), None

        def decode(_: None, results: Sequence[RowResult]) -> Sequence[Sentiment]:
            return list(map(codec.decode, results))

        return self._compute(call, key, len(inputs), size, encode, decode, _INLINE_STEPS)

    def tag(
        self, call: Call, key: ModelKey, codec: TagCodec, inputs: Sequence[str | Sequence[str]], size: int
    ) -> Coroutine[Any, Any, Sequence[Tagging]]:
        """Tags texts or given tokens."""

        def encode() -> tuple[Rows, Sequence[TaggedText]]:
            for index, item in enumerate(inputs):
                if isinstance(item, str):
                    check_text(item, f"inputs[{index}]", self._limits)
                else:
                    check_tokens(item, f"inputs[{index}]", self._limits)
            return _together(map(codec.encode, inputs))

        def decode(texts: Sequence[TaggedText], results: Sequence[RowResult]) -> Sequence[Tagging]:
            return list(map(codec.decode, texts, results))

        return self._compute(call, key, len(inputs), size, encode, decode, _INLINE_STEPS)

    def forecast(
        self,
        call: Call,
        key: ModelKey,
        codec: ForecastCodec,
        series: Sequence[Series],
        size: int,
        horizon: int | None,
        quantiles: Sequence[float] | None,
    ) -> Coroutine[Any, Any, Sequence[Forecast]]:
        """Forecasts series; None takes the model's default horizon and its trained quantile levels."""
        steps = check_horizon(horizon, codec.spec)
        levels = check_levels(quantiles, codec.spec, self._limits)

        def encode() -> tuple[Rows, Sequence[ForecastItem]]:
            for index, item in enumerate(series):
                check_series(item, codec.spec, f"series[{index}]", self._limits, steps)
            return _together(map(codec.encode, series))

        def decode(items: Sequence[ForecastItem], results: Sequence[RowResult]) -> Sequence[Forecast]:
            return [codec.decode(item, result, steps, levels) for item, result in zip(items, results, strict=True)]

        values_a_row = steps * len(codec.spec.series.targets) * (1 + len(levels))
        return self._compute(call, key, len(series), size, encode, decode, max(_INLINE_VALUES // values_a_row, 1))

    async def _compute(
        self,
        call: Call,
        key: ModelKey,
        num_items: int,
        size: int,
        encode: Callable[[], tuple[Rows, ContextT]],
        decode: Callable[[ContextT, Sequence[RowResult]], Sequence[ResultT]],
        inline: int,
    ) -> Sequence[ResultT]:
        """Checks and encodes, computes, and decodes; what is large is translated in a thread, so that nothing holds
        up the event loop.

        Args:
            inline: How much is decoded at once: steps of a stepwise result, rows of any other.
        """
        pace = self._paces[key]
        work = size + _ITEM_SIZE * num_items
        if work <= _INLINE_SIZE and pace.is_quick(work, _INLINE_S):
            rows, context = pace.take(work, encode)
        else:
            rows, context = await asyncio.to_thread(pace.take, work, encode)
        self._admission.learn(key, size, sum(rows.lengths))
        results = await self._dispatcher.run(call, key, rows)
        to_decode = sum([len(next(iter(result.values()))) for result in results])
        if to_decode <= inline:
            return decode(context, results)
        return await asyncio.to_thread(decode, context, results)


def _together(encoded: Iterable[tuple[Inputs, ContextT]]) -> tuple[Rows, Sequence[ContextT]]:
    parts, contexts = zip(*encoded, strict=True)
    return Rows.of(parts), contexts
