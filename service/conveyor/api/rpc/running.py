"""The calls that are being answered, each within its time, and their end when the server stops."""

from __future__ import annotations

from types import TracebackType

from conveyor.api.deadline import Lifetime
from conveyor.api.outcome import stopped
from conveyor.errors import Unavailable

__all__ = ["RunningCalls"]


class RunningCalls:
    """Bounds calls by their deadlines, and can end them all early. Event loop only.

    gRPC's own way to stop a call after the grace tells its caller no more than that it was cancelled.
    """

    def __init__(self) -> None:
        self._lifetimes: set[Lifetime] = set()
        self._streams: set[Lifetime] = set()

    def stream_until(self, deadline: float) -> Lifetime:
        """As `one_until`, for the part of a stream in which messages are taken in; ended by `end_streams` too.

        Raises:
            DeadlineExceeded: The deadline passed inside the block.
            Unavailable: The server drains; what was taken in is still answered.
        """
        return _Counted(deadline, self._streams)

    def end_streams(self) -> None:
        """Has every stream take in no more."""
        for lifetime in self._streams:
            lifetime.end(Unavailable("the server is shutting down; another replica may answer", retry_after_s=1.0))

    def one_until(self, deadline: float) -> Lifetime:
        """Cancels its block at `deadline` (monotonic seconds), or when `stop` is called.

        Raises:
            DeadlineExceeded: The deadline passed inside the block.
            Unavailable: The server stopped.
        """
        return _Counted(deadline, self._lifetimes)

    def stop(self) -> None:
        """Ends every call that runs, and every stream."""
        for lifetime in self._lifetimes | self._streams:
            lifetime.end(stopped())


class _Counted(Lifetime):
    """A lifetime that is in a set while its block runs."""

    __slots__ = ("_running",)

    def __init__(self, deadline: float, running: set[Lifetime]) -> None:
        super().__init__(deadline)
        self._running = running
        running.add(self)

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.discard(self)
        super().__exit__(kind, fault, trace)
