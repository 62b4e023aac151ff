"""Whose turn it is: device time is shared between models, and due times between callers. Pure."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from conveyor.wire.messages import PATIENCE_S

__all__ = ["FairShare", "due_time"]

ClientT = TypeVar("ClientT", bound=Hashable)


def due_time(now: float, deadline: float, priority: int, ahead_s: float) -> float:
    """When a row should run.

    Args:
        now: Its arrival.
        deadline: When its answer is worth nothing any more.
        priority: One of `PRIORITIES`.
        ahead_s: Device time of the rows of the same request before it: a request of a thousand rows is spread over
            the time it takes, so that another caller's single row comes between them.
    """
    return min(now + PATIENCE_S[priority] + ahead_s, deadline)


@dataclass(slots=True)
class FairShare(Generic[ClientT]):
    """Start-time fair queueing (Goyal, Vin & Cheng 1996) with equal weights: who has used least goes next.

    One that was idle starts level with the least of those that were not, so idling saves nothing up.
    """

    _used_s: dict[ClientT, float] = field(default_factory=dict)
    _floor_s: float = 0.0

    def next(self, waiting: Collection[ClientT]) -> ClientT:
        """The one of `waiting` (at least one) that has used least; the first of equals."""
        chosen = min(waiting, key=self._level) if len(waiting) > 1 else next(iter(waiting))
        self._floor_s = max(self._floor_s, self._level(chosen))
        return chosen

    def charge(self, client: ClientT, seconds: float) -> None:
        """Counts device time."""
        self._used_s[client] = self._level(client) + seconds

    def forget(self, client: ClientT) -> None:
        """Drops one that is gone."""
        self._used_s.pop(client, None)

    def _level(self, client: ClientT) -> float:
        return max(self._used_s.get(client, 0.0), self._floor_s)
