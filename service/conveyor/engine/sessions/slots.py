"""Numbers of places that are handed out and taken back in constant time. Pure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["Slots"]


class Slots:
    """Places from 0 on, of which some are in use."""

    def __init__(self) -> None:
        self.capacity = 0
        self._free = np.empty(0, dtype=np.int32)
        self._num_free = 0

    @property
    def available(self) -> int:
        """Places that are free."""
        return self._num_free

    def grow(self, more: int) -> None:
        """Adds places behind the last."""
        free = np.empty(self.capacity + more, dtype=np.int32)
        # The lowest number is handed out first: what was never in use stays memory that was never touched.
        free[:more] = np.arange(self.capacity + more - 1, self.capacity - 1, -1)
        free[more : more + self._num_free] = self._free[: self._num_free]
        self._free = free
        self._num_free += more
        self.capacity += more

    def take(self, count: int) -> npt.NDArray[np.int32]:
        """Hands out places, of which so many must be free: int32 [count]."""
        assert count <= self._num_free
        self._num_free -= count
        return self._free[self._num_free : self._num_free + count][::-1].copy()

    def give_back(self, places: npt.NDArray[np.integer]) -> None:
        """Takes places back, each once."""
        self._free[self._num_free : self._num_free + len(places)] = places
        self._num_free += len(places)
