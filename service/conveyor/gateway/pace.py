"""How long something takes, learned from doing it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["Pace"]

ResultT = TypeVar("ResultT")

# So little says more about the clock than about the work.
_TINY_SIZE = 256
# Weight of one piece of work, and how many times faster or slower than expected it counts: what was held up is soon
# forgotten.
_LEARNING_RATE = 0.1
_LARGEST_RATIO = 4.0


class Pace:
    """Seconds of a processor for a unit of work, as it was lately. Any thread; of two that learn at once one may count.

    Args:
        unit_s: What is taken for it before anything was done.
    """

    def __init__(self, unit_s: float) -> None:
        self._unit_s = unit_s

    def seconds(self, size: int) -> float:
        """What work of some size should take."""
        return size * self._unit_s

    def is_quick(self, size: int, within_s: float) -> bool:
        """Whether work of some size should be done within a time. Of what is tiny that is taken for granted: it teaches
        nothing, so a pace that is wrong for it would stay."""
        return size <= _TINY_SIZE or self.seconds(size) <= within_s

    def take(self, size: int, work: Callable[[], ResultT]) -> ResultT:
        """Does work of some size, and learns from it if it is not tiny. An error that it raises says nothing."""
        if size <= _TINY_SIZE:
            return work()
        # Not the time that passes: in a thread that would be mostly waiting for the interpreter.
        began = time.thread_time()
        result = work()
        spent_s = time.thread_time() - began
        self.learn(size, spent_s)
        return result

    def learn(self, size: int, spent_s: float) -> None:
        """Work of some size took so long."""
        unit_s = self._unit_s
        ratio = min(max(spent_s / (size * unit_s), 1 / _LARGEST_RATIO), _LARGEST_RATIO)
        self._unit_s = unit_s * (1 + _LEARNING_RATE * (ratio - 1))
