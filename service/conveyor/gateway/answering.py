"""From items to results for a model that is already chosen: check, encode, compute, decode.

Requests and the samples of a package at load take this same path.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from conveyor.domain import Forecast, ModelKey, Sentiment, Series, Tagging
from conveyor.gateway.admission import Admission
from conveyor.gateway.call import Call
from conveyor.gateway.checks import check_horizon, check_levels, check_series, check_text, check_tokens
from conveyor.gateway.codecs import ForecastCodec, ForecastItem, SentimentCodec, TagCodec, TaggedText
from conveyor.gateway.dispatcher import Dispatcher, RowResult
from conveyor.gateway.limits import Limits
from conveyor.wire.messages import Inputs

__all__ = ["Answering", "size_of"]

ItemT = TypeVar("ItemT")
ContextT = TypeVar("ContextT")
ResultT = TypeVar("ResultT")

# What takes about a millisecond to translate, and more of which leaves the event loop: code points or values in,
# steps or values out.
_INLINE_SIZE = 4096
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

    def sentiment(
        self, call: Call, key: ModelKey, codec: SentimentCodec, inputs: Sequence[str], size: int
    ) -> Coroutine[Any, Any, Sequence[Sentiment]]:
        """Classifies texts."""

        def encode(index: int, text: str) -> tuple[Inputs, None]:
            check_text(text, f"inputs[{index}]", self._limits)
            return codec.encode(text)

        return self._compute(call, key, inputs, size, encode, codec.decode, _INLINE_STEPS)

    def tag(
        self, call: Call, key: ModelKey, codec: TagCodec, inputs: Sequence[str | Sequence[str]], size: int
    ) -> Coroutine[Any, Any, Sequence[Tagging]]:
        """Tags texts or given tokens."""

        def encode(index: int, item: str | Sequence[str]) -> tuple[Inputs, TaggedText]:
            if isinstance(item, str):
                check_text(item, f"inputs[{index}]", self._limits)
            else:
                check_tokens(item, f"inputs[{index}]", self._limits)
            return codec.encode(item)

        return self._compute(call, key, inputs, size, encode, codec.decode, _INLINE_STEPS)

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

        def encode(index: int, item: Series) -> tuple[Inputs, ForecastItem]:
            check_series(item, codec.spec, f"series[{index}]", self._limits, steps)
            return codec.encode(item)

        def decode(item: ForecastItem, result: RowResult) -> Forecast:
            return codec.decode(item, result, steps, levels)

        values_a_row = steps * len(codec.spec.series.targets) * (1 + len(levels))
        return self._compute(call, key, series, size, encode, decode, max(_INLINE_VALUES // values_a_row, 1))

    async def _compute(
        self,
        call: Call,
        key: ModelKey,
        items: Sequence[ItemT],
        size: int,
        encode: Callable[[int, ItemT], tuple[Inputs, ContextT]],
        decode: Callable[[ContextT, RowResult], ResultT],
        inline: int,
    ) -> Sequence[ResultT]:
        """Checks and encodes, computes, and decodes; what is large is translated in a thread, so that nothing holds
        up the event loop.

        Args:
            inline: How much is decoded at once: steps of a stepwise result, rows of any other.
        """

        def encode_all() -> list[tuple[Inputs, ContextT]]:
            return [encode(index, item) for index, item in enumerate(items)]

        def decode_all() -> list[ResultT]:
            return [decode(context, result) for (_, context), result in zip(encoded, results, strict=True)]

        encoded = encode_all() if size <= _INLINE_SIZE else await asyncio.to_thread(encode_all)
        rows = [row for row, _ in encoded]
        self._admission.learn(key, size, sum(map(len, rows)))
        results = await self._dispatcher.run(call, key, rows)
        to_decode = sum([len(next(iter(result.values()))) for result in results])
        return decode_all() if to_decode <= inline else await asyncio.to_thread(decode_all)
