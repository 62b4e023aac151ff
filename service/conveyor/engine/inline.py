"""The engine port on the event loop itself, for a process that does nothing else: no thread, no hand-over."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

import structlog

from conveyor.domain import ModelKey
from conveyor.engine.batching.backlog import BacklogLimits
from conveyor.engine.batching.policy import BatchLimits
from conveyor.engine.executors.port import Executor
from conveyor.engine.loop import EngineLoop
from conveyor.engine.sessions.options import IN_MEMORY, SessionOptions
from conveyor.errors import Unavailable
from conveyor.wire.port import ENGINE_STOPPED, EngineStats, ReplySink, Work
from conveyor.wire.sessions import SessionCall, SessionState

__all__ = ["InlineEngine"]

_log = structlog.get_logger(__name__)

ValueT = TypeVar("ValueT")


class InlineEngine:
    """`EnginePort` that gives the event loop to one execution after the other, and to sockets only in between.

    What arrives during an execution could not run before its end anyway; a thread beside it would cost two wake-ups a
    block and a fight for the interpreter.

    Args:
        executor: Called on the event loop only.
        on_lost: Called with the reason if an execution failed in a way that leaves nothing to go on with; every row
            was answered before.
        sessions: What is told about streaming sessions.
    """

    def __init__(
        self,
        executor: Executor[Any],
        backlog_limits: BacklogLimits,
        batch_limits: BatchLimits,
        on_lost: Callable[[str], None],
        sessions: SessionOptions = IN_MEMORY,
    ) -> None:
        self._executor = executor
        self._limits = backlog_limits, batch_limits
        self._sessions = sessions
        self._alarm: asyncio.TimerHandle | None = None
        self._on_lost = on_lost
        self._closed = False
        self._scheduled = False
        self._ended = asyncio.Event()

    def connect(self, sink: ReplySink) -> None:
        """Sets where replies go."""
        self._event_loop = asyncio.get_running_loop()
        self._sink = sink
        self._loop: EngineLoop[Any] = EngineLoop(
            self._executor, *self._limits, reply=sink, clock=time.monotonic, sessions=self._sessions
        )

    def submit(self, block: Work) -> None:
        """Queues the rows of a block."""
        if self._closed:
            self._sink(block.refused(ENGINE_STOPPED))
        else:
            self._loop.submit(block)
            self._schedule()

    def cancel(self, ids: Collection[int]) -> None:
        """Drops rows nobody waits for."""
        self._loop.cancel(ids)

    async def session(self, call: SessionCall) -> SessionState:
        """Does what a call asks with a session."""
        answer = self._do(lambda: self._loop.session(call))
        self._set_alarm()
        return answer

    async def load(self, key: ModelKey, directory: Path) -> None:
        """Loads and warms a package; nothing else happens meanwhile."""
        self._do(lambda: self._loop.load(key, directory))
        self._set_alarm()

    async def unload(self, key: ModelKey) -> None:
        """Forgets a model."""
        self._do(lambda: self._loop.unload(key))

    async def stats(self) -> EngineStats:
        """The engine as of now."""
        return self._do(self._loop.stats)

    async def drain(self) -> None:
        """Finishes what was accepted, refuses what is new."""
        self._closed = True
        self._schedule()
        await self._ended.wait()

    def _do(self, work: Callable[[], ValueT]) -> ValueT:
        if self._closed:
            raise Unavailable(ENGINE_STOPPED)
        return work()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._event_loop.call_soon(self._step)

    def _step(self) -> None:
        """One execution; the loop looks at its sockets before the next."""
        self._scheduled = False
        if self._ended.is_set():
            return
        try:
            self._loop.step()
            if self._closed and self._loop.idle:
                self._loop.close()
                self._ended.set()
        except Exception:
            _log.exception("the engine failed")
            self._closed = True
            self._loop.fail_all("the engine failed; its rows were not computed")
            self._ended.set()
            self._on_lost("the engine was lost")
            return
        if not self._loop.idle:
            self._schedule()
        elif not self._closed:
            self._set_alarm()

    def _set_alarm(self) -> None:
        """Sees to it that what is to be done though nobody asks is done in time."""
        if self._alarm is not None:
            self._alarm.cancel()
        wait_s = self._loop.wakes_at - time.monotonic()
        self._alarm = self._event_loop.call_later(max(wait_s, 0.0), self._schedule) if math.isfinite(wait_s) else None
