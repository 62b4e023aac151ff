"""From items to results for a model that is already chosen: check, encode, compute, decode.

Requests and the samples of a package at load take this same path.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Final, TypeVar

from conveyor.domain import ModelKey
from conveyor.gateway.admission import Admission
from conveyor.gateway.call import Call
from conveyor.gateway.dispatcher import Dispatcher
from conveyor.gateway.pace import Pace
from conveyor.gateway.translation import Items
from conveyor.wire.messages import Rows

__all__ = ["Answering"]

ResultT = TypeVar("ResultT")

# What should take longer to encode leaves the event loop, and what is larger, since a pace says nothing about what
# nobody has sent yet: words that were never seen take ten times as long as others.
_INLINE_S: Final = 0.001
_INLINE_SIZE: Final = 12_288
# What an item takes beside its content: as much as so many code points.
_ITEM_SIZE: Final = 16
# Of a code point or a value, before any was seen: a tokenizer of words takes 0.1 to 0.5 µs, one of characters 0.6 to 3.
_UNIT_S: Final = 1e-6


class Answering:
    """Answers items, in order. Event loop only; may raise any request error.

    dispatcher: where their rows go.
    """

    def __init__(self, dispatcher: Dispatcher, admission: Admission) -> None:
        self.dispatcher = dispatcher
        self._admission = admission
        # Of encoding, by model: tokenizers are fifty times apart.
        self._paces: defaultdict[ModelKey, Pace] = defaultdict(lambda: Pace(_UNIT_S))

    async def results(
        self, call: Call, key: ModelKey, items: Items[ResultT], rows: Rows | None = None
    ) -> Sequence[ResultT]:
        """Computes items of any size: what is large is translated in a thread, so that nothing holds up the event loop.

        Args:
            rows: The items, if they are encoded already.
        """
        if rows is None:
            rows = self.encode_if_quick(key, items)
        if rows is None:
            rows = await asyncio.to_thread(self._paces[key].take, _work(items), items.encode)
            self._learn(key, items, rows)
        results = await self.dispatcher.run(call, key, rows)
        if items.decodes_quickly(rows):
            return items.decode(results)
        return await asyncio.to_thread(items.decode, results)

    def encode_if_quick(self, key: ModelKey, items: Items[ResultT]) -> Rows | None:
        """The rows of items that the event loop may encode; None if a thread must."""
        pace, work = self._paces[key], _work(items)
        if work > _INLINE_SIZE or not pace.is_quick(work, _INLINE_S):
            return None
        rows = pace.take(work, items.encode)
        self._learn(key, items, rows)
        return rows

    def encode_together(self, key: ModelKey, several: Sequence[Items[ResultT]]) -> Sequence[Rows | None]:
        """As `encode_if_quick` for several items of one kind, of which all may be None whatever their size: encoding
        one by one says then what is wrong."""
        pace, works = self._paces[key], list(map(_work, several))
        unencoded: list[Rows | None] = [None] * len(several)
        largest = max(works)
        if largest > _INLINE_SIZE or not pace.is_quick(largest, _INLINE_S):
            return unencoded
        encoded = pace.take(sum(works), lambda: several[0].encode_together(several))
        if encoded is None:
            return unencoded
        for items, rows in zip(several, encoded, strict=True):
            self._learn(key, items, rows)
        return encoded

    def _learn(self, key: ModelKey, items: Items[ResultT], rows: Rows) -> None:
        self._admission.learn(key, items.size, sum(rows.lengths))


def _work(items: Items[ResultT]) -> int:
    return items.size + _ITEM_SIZE * items.count
