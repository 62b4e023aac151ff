"""Waiting for what the engine was asked, until the caller's deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from conveyor.errors import DeadlineExceeded
from conveyor.lifecycle.alarms import Alarms

__all__ = ["Waiting"]


class Waiting:
    """Those that wait for the engine. Event loop only.

    Args:
        clock: Monotonic seconds, as the deadlines of calls.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._alarms: Alarms[asyncio.Future[None]] = Alarms(_expire, clock)

    async def until_answered(self, done: asyncio.Future[None], deadline: float) -> None:
        """Returns when `done` has a result, and raises what it was given instead.

        Args:
            deadline: An infinite one never passes.

        Raises:
            DeadlineExceeded: The deadline passed first.
        """
        self._alarms.set(done, deadline)
        try:
            await done
        finally:
            self._alarms.unset(done)


def _expire(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_exception(DeadlineExceeded("the deadline passed before the answer was ready"))
