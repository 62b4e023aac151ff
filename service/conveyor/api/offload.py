"""What is too large for the event loop, done in threads, and the bound on how much of it waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, TypeVar

from conveyor.domain import Answer, Forecast, Sentiment, Tagging
from conveyor.errors import QueueFull

__all__ = ["INLINE_BYTES", "Offload", "Room", "forecast_size", "num_values"]

ResultT = TypeVar("ResultT")

# Both take about a millisecond.
INLINE_BYTES: Final = 64 * 1024
_INLINE_VALUES: Final = 4096

# Parsers keep the interpreter's lock, so that more threads would finish nothing sooner and hold the loop up longer.
_THREADS: Final = 2


@dataclass(slots=True)
class Room:
    """Counts bytes that are held, up to a bound. Any thread."""

    max_bytes: int
    used_bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, num_bytes: int) -> None:
        """Raises QueueFull if there is no room now."""
        with self._lock:
            if self.used_bytes + num_bytes > self.max_bytes:
                raise QueueFull("too many bytes of requests are being read; try again later", retry_after_s=1.0)
            self.used_bytes += num_bytes

    def give_back(self, num_bytes: int) -> None:
        """Frees what was taken."""
        with self._lock:
            self.used_bytes -= num_bytes


class Offload:
    """Reads requests and writes answers: small ones at once, large ones in threads of its own.

    Args:
        max_bytes: Bytes of large requests that are read, or wait to be, at one time; more are refused.
    """

    def __init__(self, max_bytes: int) -> None:
        self._room = Room(max_bytes)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="conveyor-door")

    async def read(self, num_bytes: int, work: Callable[[], ResultT], inline_bytes: int = INLINE_BYTES) -> ResultT:
        """Does `work` on a request of this size; above `inline_bytes` in a thread.

        Raises:
            QueueFull: Too many bytes are being read now.
        """
        if num_bytes <= inline_bytes:
            return work()
        self._room.take(num_bytes)
        try:
            reading = self._threads.submit(work)
        except BaseException:
            self._room.give_back(num_bytes)
            raise
        # Not when this coroutine ends: a caller that gave up leaves a thread that is still busy with its request.
        reading.add_done_callback(lambda _: self._room.give_back(num_bytes))
        return await asyncio.wrap_future(reading)

    async def write(self, num_values: int, work: Callable[[], ResultT]) -> ResultT:
        """Does `work` on an answer of this size."""
        if num_values <= _INLINE_VALUES:
            return work()
        return await asyncio.wrap_future(self._threads.submit(work))


def num_values(answer: Answer[Sentiment] | Answer[Tagging] | Answer[Forecast]) -> int:
    """Returns about how many numbers and names an answer holds."""
    count = 0
    for result in answer.results:
        if isinstance(result, Sentiment):
            count += len(result.scores)
        elif isinstance(result, Tagging):
            count += len(result.tokens)
        else:
            count += forecast_size(result)
    return count


def forecast_size(forecast: Forecast) -> int:
    """Returns how many numbers a forecast holds."""
    return len(forecast.mean) * len(forecast.targets) * (1 + len(forecast.quantiles))
