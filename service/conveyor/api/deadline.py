"""The end of a request's time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from conveyor.errors import DeadlineExceeded

__all__ = ["LONGEST_TIMEOUT_S", "until"]

# No request takes longer, whatever its caller asks for: a body may otherwise be sent for ever. Timers have bounds too.
LONGEST_TIMEOUT_S: Final = 3600.0


@asynccontextmanager
async def until(deadline: float) -> AsyncIterator[asyncio.Timeout]:
    """Cancels its block at `deadline`, in monotonic seconds. The timeout can be moved by whoever gets it.

    Raises:
        DeadlineExceeded: The deadline passed inside the block.
    """
    # Deadlines are on the system's clock, and the loop's need not be that one.
    scope = asyncio.timeout(deadline - time.monotonic())
    try:
        async with scope:
            yield scope
    except TimeoutError as fault:
        if not scope.expired():
            raise
        raise DeadlineExceeded("the deadline passed before the answer") from fault
