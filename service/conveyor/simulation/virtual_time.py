"""An event loop that does not wait: where nothing is to be done, its time jumps to the next timer."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context, copy_context
from heapq import heappop, heappush
from typing import Any, TypeVar

__all__ = ["Deadlock", "VirtualTimeLoop", "run"]

ValueT = TypeVar("ValueT")


class Deadlock(RuntimeError):
    """Somebody waits and nothing is left that could happen."""


class _Handle(asyncio.TimerHandle):
    """A callback to run. Its base would ask the loop for what only debugging needs, at each of thousands."""

    __slots__ = ()

    def __init__(self, when: float, callback: Callable[..., object], args: tuple[Any, ...], context: Context) -> None:
        self._when = when
        self._callback: Callable[..., object] | None = callback
        self._args: Sequence[Any] = args
        self._context = context
        self._cancelled = False

    def cancel(self) -> None:
        """Lets go of the callback; the loop drops what is left when its time comes."""
        self._cancelled = True
        self._callback, self._args = None, ()


class VirtualTimeLoop(asyncio.BaseEventLoop):
    """Runs what is written for asyncio in an order that depends on its timers alone. No threads, no sockets.

    As asyncio does, it calls back in the order of calls, timers in the order of their times, and what a callback
    adds after all that stood there before it. What a callback raises ends the run, where a server would log it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._soon: deque[_Handle] = deque()
        # The number keeps timers of one time in the order in which they were set.
        self._timers: list[tuple[float, int, _Handle]] = []
        self._numbers = itertools.count()
        self._tasks: list[asyncio.Task[Any]] = []

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self._now

    def stall(self, seconds: float) -> None:
        """Lets time pass while nothing else runs, as a callback does that holds the loop up."""
        self._now += seconds

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Calls back once what stands before it is done."""
        handle = _Handle(self._now, callback, args, copy_context() if context is None else context)
        self._soon.append(handle)
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Calls back at a time."""
        handle = _Handle(when, callback, args, copy_context() if context is None else context)
        heappush(self._timers, (when, next(self._numbers), handle))
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Calls back after some seconds."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def create_task(self, coro: Any, *, name: Any = None, context: Context | None = None) -> asyncio.Task[Any]:
        """A task that `cancel_tasks` will find."""
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name=name, context=context)
        self._tasks.append(task)
        return task

    def run_until(self, future: asyncio.Future[ValueT]) -> ValueT:
        """Runs until a future is done.

        Raises:
            Deadlock: Nothing is left to do before.
        """
        soon, timers = self._soon, self._timers
        asyncio._set_running_loop(self)
        try:
            while not future.done():
                if not soon or (timers and timers[0][0] <= self._now):
                    self._collect_due()
                for _ in range(len(soon)):
                    handle = soon.popleft()
                    if handle._callback is not None:
                        handle._context.run(handle._callback, *handle._args)
        finally:
            asyncio._set_running_loop(None)
        return future.result()

    def cancel_tasks(self) -> None:
        """Ends every task that has not ended."""
        left = [task for task in self._tasks if not task.done()]
        for task in left:
            task.cancel()
        for task in left:
            self.run_until(asyncio.ensure_future(asyncio.wait([task]), loop=self))

    def _collect_due(self) -> None:
        """Puts the timers that are due behind what is to be called soon; jumps to the next where that is nothing."""
        timers, soon = self._timers, self._soon
        while not soon:
            if not timers:
                raise Deadlock("somebody waits for what will never happen")
            when, _, handle = heappop(timers)
            if not handle.cancelled():
                self._now = max(self._now, when)
                soon.append(handle)
        while timers and timers[0][0] <= self._now:
            soon.append(heappop(timers)[2])


def run(work: Coroutine[Any, Any, ValueT]) -> ValueT:
    """Runs a coroutine to its end on a loop of its own.

    Raises:
        Deadlock: It waits for what will never happen.
    """
    loop = VirtualTimeLoop()
    try:
        result: ValueT = loop.run_until(loop.create_task(work))
        return result
    finally:
        loop.cancel_tasks()
        loop.close()
