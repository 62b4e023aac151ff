"""The calls that are being answered, each within its time, and their end when the server stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from conveyor.api.deadline import until
from conveyor.api.outcome import stopped
from conveyor.errors import DeadlineExceeded

__all__ = ["RunningCalls"]


class RunningCalls:
    """Bounds calls by their deadlines, and can end them all early. Event loop only.

    gRPC's own way to stop a call after the grace tells its caller no more than that it was cancelled.
    """

    def __init__(self) -> None:
        self._scopes: set[asyncio.Timeout] = set()
        self._stopped = False

    @asynccontextmanager
    async def one_until(self, deadline: float) -> AsyncIterator[None]:
        """Cancels its block at `deadline` (monotonic seconds), or when `stop` is called.

        Raises:
            DeadlineExceeded: The deadline passed.
            Unavailable: The server stopped.
        """
        try:
            async with until(deadline) as scope:
                self._scopes.add(scope)
                try:
                    yield
                finally:
                    self._scopes.discard(scope)
        except DeadlineExceeded:
            if self._stopped:
                raise stopped() from None
            raise

    def stop(self) -> None:
        """Ends every call that runs."""
        self._stopped = True
        now = asyncio.get_running_loop().time()
        for scope in self._scopes:
            if not scope.expired():
                scope.reschedule(now)
