"""The calls that are being answered, each within its time, and their end when the server stops."""

from __future__ import annotations

import math
from types import TracebackType
from typing import Any, Self

from conveyor.api.deadline import Lifetime
from conveyor.api.outcome import stopped
from conveyor.api.small import SmallRequest
from conveyor.errors import Unavailable
from conveyor.lifecycle.alarms import Alarms

__all__ = ["RunningCalls"]


class RunningCalls:
    """Bounds calls by their deadlines, and can end them all early. Event loop only.

    gRPC's own way to stop a call after the grace tells its caller no more than that it was cancelled.
    """

    def __init__(self) -> None:
        self._calls: Alarms[Lifetime] = Alarms(Lifetime.expire)
        self._streams: Alarms[Lifetime] = Alarms(Lifetime.expire)
        self._small: set[SmallRequest[Any]] = set()

    def add(self, request: SmallRequest[Any]) -> None:
        """Has `stop` end a request too that sees to its deadline itself."""
        self._small.add(request)

    def discard(self, request: SmallRequest[Any]) -> None:
        """Takes it back."""
        self._small.discard(request)

    def stream_until(self, deadline: float) -> Lifetime:
        """As `one_until`, for the part of a stream in which messages are taken in; ended by `end_streams` too.

        Raises:
            DeadlineExceeded: The deadline passed inside the block.
            Unavailable: The server drains; what was taken in is still answered.
        """
        return _Counted(deadline, self._streams)

    def end_streams(self) -> None:
        """Has every stream take in no more."""
        for lifetime in list(self._streams):
            lifetime.end(Unavailable("the server is shutting down; another replica may answer", retry_after_s=1.0))

    def one_until(self, deadline: float) -> Lifetime:
        """Cancels its block at `deadline` (monotonic seconds), or when `stop` is called.

        Raises:
            DeadlineExceeded: The deadline passed inside the block.
            Unavailable: The server stopped.
        """
        return _Counted(deadline, self._calls)

    def stop(self) -> None:
        """Ends every call that runs, and every stream."""
        for request in list(self._small):
            request.end(stopped())
        for lifetime in [*self._calls, *self._streams]:
            lifetime.end(stopped())


class _Counted(Lifetime):
    """A lifetime that is among those that run while its block does, and has no timer of its own."""

    __slots__ = ("_among", "_until")

    def __init__(self, deadline: float, among: Alarms[Lifetime]) -> None:
        super().__init__(math.inf)
        self._until = deadline
        self._among = among

    def __enter__(self) -> Self:
        super().__enter__()
        self._among.set(self, self._until)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._among.unset(self)
        super().__exit__(kind, fault, trace)
