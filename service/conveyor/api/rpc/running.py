"""The calls that are being answered, each within its time, and their end when the server stops."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from conveyor.api.deadline import Lifetime
from conveyor.api.outcome import stopped

__all__ = ["RunningCalls"]


class RunningCalls:
    """Bounds calls by their deadlines, and can end them all early. Event loop only.

    gRPC's own way to stop a call after the grace tells its caller no more than that it was cancelled.
    """

    def __init__(self) -> None:
        self._lifetimes: set[Lifetime] = set()

    @contextmanager
    def one_until(self, deadline: float) -> Iterator[None]:
        """Cancels its block at `deadline` (monotonic seconds), or when `stop` is called.

        Raises:
            DeadlineExceeded: The deadline passed.
            Unavailable: The server stopped.
        """
        with Lifetime(deadline) as lifetime:
            self._lifetimes.add(lifetime)
            try:
                yield
            finally:
                self._lifetimes.discard(lifetime)

    def stop(self) -> None:
        """Ends every call that runs."""
        for lifetime in self._lifetimes:
            lifetime.end(stopped())
