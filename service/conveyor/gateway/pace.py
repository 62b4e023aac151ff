"""How long something takes, learned from doing it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["Pace"]

ResultT = TypeVar("ResultT")

# Less says more about the clock than about the work.
_LEAST_SIZE = 256
# Weight of one piece of work: what one took that was held up is soon forgotten.
_LEARNING_RATE = 0.1


class Pace:
    """Seconds of a processor for a unit of work, as it was lately. Any thread.

    Args:
        unit_s: What is taken for it before anything was done.
    """

    def __init__(self, unit_s: float) -> None:
        self._unit_s = unit_s

    def seconds(self, size: int) -> float:
        """What work of some size should take."""
        return size * self._unit_s

    def take(self, size: int, work: Callable[[], ResultT]) -> ResultT:
        """Does work of some size, and learns from it. An error that it raises says nothing about its pace."""
        if size < _LEAST_SIZE:
            return work()
        # Not the time that passes: in a thread that would be mostly waiting for the interpreter.
        began = time.thread_time()
        result = work()
        self._unit_s += _LEARNING_RATE * ((time.thread_time() - began) / size - self._unit_s)
        return result
