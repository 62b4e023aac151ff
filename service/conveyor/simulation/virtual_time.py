"""An event loop that does not wait: where nothing is to be done, its time jumps to the next timer."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["Deadlock", "VirtualTimeLoop", "run"]

ValueT = TypeVar("ValueT")


class Deadlock(RuntimeError):
    """Somebody waits and nothing is left that could happen."""


class _Jump(selectors.SelectSelector):
    """Where a loop would sleep, time jumps instead. Nothing outside the loop can wake it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Passes the time that the loop would wait for something to happen."""
        if timeout is None:
            raise Deadlock("somebody waits for what will never happen")
        self.now += max(timeout, 0.0)
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Runs what is written for asyncio in an order that depends on its timers alone. No threads, no sockets."""

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self._jump.now

    def stall(self, seconds: float) -> None:
        """Lets time pass while nothing else runs, as a callback does that holds the loop up."""
        self._jump.now += seconds

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Ends the run with what a callback raised, where a server would log it and go on."""
        if "handle" in context:
            raise context["exception"]
        super().call_exception_handler(context)


def run(work: Coroutine[Any, Any, ValueT]) -> ValueT:
    """Runs a coroutine to its end on a loop of its own.

    Raises:
        Deadlock: It waits for what will never happen.
    """
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(work)
