"""Numbers of places that are handed out and taken back in constant time. Pure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["Slots"]


class Slots:
    """Places from 0 on, of which some are in use. One that was in use before is handed out first, then the lowest: what
    was never in use is memory that was never touched."""

    def __init__(self) -> None:
        self.capacity = 0
        self._first_unused = 0
        self._free = np.empty(0, dtype=np.int32)
        self._num_free = 0

    @property
    def available(self) -> int:
        """Places that are free."""
        return self._num_free + self.capacity - self._first_unused

    def grow(self, more: int) -> None:
        """Adds places behind the last."""
        self.capacity += more

    def take(self, count: int) -> npt.NDArray[np.int32]:
        """Hands out places, of which so many must be free: int32 [count]."""
        assert count <= self.available
        again = min(count, self._num_free)
        self._num_free -= again
        first, self._first_unused = self._first_unused, self._first_unused + count - again
        unused = np.arange(first, self._first_unused, dtype=np.int32)
        return np.concatenate([self._free[self._num_free : self._num_free + again], unused])

    def give_back(self, places: npt.NDArray[np.integer]) -> None:
        """Takes places back, each once."""
        count = self._num_free + len(places)
        if count > len(self._free):
            grown = np.empty(max(2 * len(self._free), count), dtype=np.int32)
            grown[: self._num_free] = self._free[: self._num_free]
            self._free = grown
        self._free[self._num_free : count] = places
        self._num_free = count
