"""Waiting for what the engine was asked, until the caller's deadline."""

from __future__ import annotations

import asyncio
import math

from conveyor.errors import DeadlineExceeded

__all__ = ["until_answered"]


async def until_answered(done: asyncio.Future[None], deadline: float, now: float) -> None:
    """Returns when `done` has a result, and raises what it was given instead.

    Args:
        deadline, now: Seconds of the same clock; an infinite deadline never passes.

    Raises:
        DeadlineExceeded: The deadline passed first.
    """
    timer = None
    if deadline < math.inf:
        timer = asyncio.get_running_loop().call_later(max(0.0, deadline - now), _expire, done)
    try:
        await done
    finally:
        if timer is not None:
            timer.cancel()


def _expire(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_exception(DeadlineExceeded("the deadline passed before the answer was ready"))
