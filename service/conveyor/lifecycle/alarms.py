"""Moments at which something has run out, with one timer for all of them."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

__all__ = ["Alarms"]

KeyT = TypeVar("KeyT")


class Alarms(Generic[KeyT]):
    """Calls `ring` with each key whose moment has passed and that was not taken back before. Event loop only.

    Nearly all are taken back long before, and a timer of the loop's for each took longer than reading a request.

    Args:
        ring: Told a key that is not set any more; must not raise.
        clock: What moments are measured by, in seconds.
    """

    def __init__(self, ring: Callable[[KeyT], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._ring = ring
        self._clock = clock
        self._moments: dict[KeyT, float] = {}
        # When the timer goes off: not after the first of the moments.
        self._next = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._moments)

    def __iter__(self) -> Iterator[KeyT]:
        """The keys that are set."""
        return iter(self._moments)

    def set(self, key: KeyT, moment: float) -> None:
        """Sets the moment of a key; infinity never comes."""
        self._moments[key] = moment
        if moment < self._next:
            self._wind(moment)

    def unset(self, key: KeyT) -> None:
        """Takes a key back, if it is set."""
        self._moments.pop(key, None)

    def _wind(self, moment: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next = moment
        self._timer = asyncio.get_running_loop().call_later(max(0.0, moment - self._clock()), self._look)

    def _look(self) -> None:
        self._timer, self._next = None, math.inf
        now = self._clock()
        due = [key for key, moment in self._moments.items() if moment <= now]
        for key in due:
            if self._moments.pop(key, None) is not None:
                self._ring(key)
        first = min(self._moments.values(), default=math.inf)
        if first < self._next:
            self._wind(first)
