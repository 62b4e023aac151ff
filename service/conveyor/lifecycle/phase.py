"""Where the server stands between start and stop."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

__all__ = ["Lifecycle", "Phase"]


class Phase(StrEnum):
    """The phases in order; none is returned to."""

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
        """Enters a phase; entering the present one again, or going back, changes nothing."""
        order = list(Phase)
        if order.index(phase) <= order.index(self._phase):
            return
        self._phase = phase
        for callback in self._watchers:
            callback(phase)
