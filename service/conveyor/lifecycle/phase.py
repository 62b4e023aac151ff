"""Where the server stands between start and stop."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

__all__ = ["LAST_WRITES_S", "Lifecycle", "Phase"]

# What is already said or computed gets to leave, also if the grace is over.
LAST_WRITES_S = 1.0


class Phase(StrEnum):
    """The phases in order. Starting comes again only where a lost engine is started again; draining is for good."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


class Lifecycle:
    """The current phase, told to whoever watches. Used from the event loop only."""

    def __init__(self) -> None:
        self._phase = Phase.STARTING
        self._watchers: list[Callable[[Phase], None]] = []

    @property
    def phase(self) -> Phase:
        """The phase now."""
        return self._phase

    def watch(self, callback: Callable[[Phase], None]) -> None:
        """Calls `callback` with every later phase."""
        self._watchers.append(callback)

    def set(self, phase: Phase) -> None:
        """Enters a phase. Entering the present one again, or any other while draining, changes nothing."""
        if phase is self._phase or self._phase is Phase.DRAINING:
            return
        self._phase = phase
        for callback in self._watchers:
            callback(phase)
