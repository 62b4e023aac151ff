"""The engine port in this process: one thread that owns the device, commands in, blocks out."""

from __future__ import annotations

import asyncio
import math
import queue
import threading
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
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
from conveyor.wire.messages import RowBlock
from conveyor.wire.port import ENGINE_STOPPED, EngineStats, ReplySink, Work
from conveyor.wire.sessions import SessionBlock, SessionCall, SessionState

__all__ = ["LocalEngine"]

_log = structlog.get_logger(__name__)

ValueT = TypeVar("ValueT")


@dataclass(frozen=True, slots=True)
class _Cancel:
    """Drop these rows."""

    ids: Collection[int]


@dataclass(frozen=True, slots=True)
class _Question:
    """Work for the thread whose outcome a future takes."""

    work: Callable[[EngineLoop[Any]], object]
    future: asyncio.Future[Any]


# None asks the thread to finish what waits and end.
_Command = Work | _Cancel | _Question | None


class LocalEngine:
    """`EnginePort` over a thread. All methods are called from one event loop; replies reach it.

    Args:
        make_executor: Called once, on the engine's thread, which then makes every call to the executor.
        on_lost: Called on the event loop with the reason if the thread dies, or can't begin because there is no such
            device or the state directory can't be used; every row and every question it had was answered before.
        sessions: What is told about streaming sessions.
    """

    def __init__(
        self,
        make_executor: Callable[[], Executor[Any]],
        backlog_limits: BacklogLimits,
        batch_limits: BatchLimits,
        on_lost: Callable[[str], None],
        sessions: SessionOptions = IN_MEMORY,
    ) -> None:
        self._make_executor = make_executor
        self._backlog_limits = backlog_limits
        self._batch_limits = batch_limits
        self._on_lost = on_lost
        self._sessions = sessions
        self._inbox: queue.SimpleQueue[_Command] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._main, name="conveyor-engine", daemon=True)

    def connect(self, sink: ReplySink) -> None:
        """Sets where replies go and starts the thread."""
        self._event_loop = asyncio.get_running_loop()
        self._sink = sink
        self._ended = self._event_loop.create_future()
        self._thread.start()

    def submit(self, block: Work) -> None:
        """Queues the rows of a block."""
        if self._closed:
            self._refuse(block)
        else:
            self._inbox.put(block)

    def cancel(self, ids: Collection[int]) -> None:
        """Drops rows nobody waits for."""
        self._inbox.put(_Cancel(ids))

    def session(self, call: SessionCall) -> Awaitable[SessionState]:
        """Does what a call asks with a session."""
        return self._ask(lambda loop: loop.session(call))

    def load(self, key: ModelKey, directory: Path) -> Awaitable[None]:
        """Loads and warms a package."""
        return self._ask(lambda loop: loop.load(key, directory))

    def unload(self, key: ModelKey) -> Awaitable[None]:
        """Forgets a model."""
        return self._ask(lambda loop: loop.unload(key))

    def stats(self) -> Awaitable[EngineStats]:
        """The engine as of now; behind what the thread is doing."""
        return self._ask(lambda loop: loop.stats())

    async def drain(self) -> None:
        """Finishes what was accepted, then ends the thread."""
        if not self._closed:
            self._closed = True
            self._inbox.put(None)
        await self._ended
        # Until the thread itself is gone: one that the interpreter finds at its own end is torn down in native code.
        await asyncio.to_thread(self._thread.join)

    def _ask(self, work: Callable[[EngineLoop[Any]], ValueT]) -> Awaitable[ValueT]:
        future: asyncio.Future[ValueT] = self._event_loop.create_future()
        if self._closed:
            future.set_exception(Unavailable(ENGINE_STOPPED))
        else:
            self._inbox.put(_Question(work, future))
        return future

    def _refuse(self, block: Work) -> None:
        self._sink(block.refused(ENGINE_STOPPED))

    def _main(self) -> None:
        """The thread: commands first, then one execution, for ever; waits only while nothing is queued."""
        try:
            executor = self._make_executor()
        except ValueError as error:
            # No such device: the user's mistake, to be told in its own words.
            self._call(self._lose, None, str(error))
            return
        except BaseException as error:
            _log.exception("the device could not be opened")
            self._call(self._lose, None, f"the device could not be opened: {error}")
            return
        try:
            loop: EngineLoop[Any] = EngineLoop(
                executor,
                self._backlog_limits,
                self._batch_limits,
                reply=lambda reply: self._call(self._sink, reply),
                clock=time.monotonic,
                sessions=self._sessions,
            )
        except OSError as error:
            # The state directory can't be used; says which and why.
            self._call(self._lose, None, str(error))
            return
        try:
            draining = False
            while not (draining and loop.idle):
                draining = self._take_commands(loop, wait=loop.idle) or draining
                loop.step()
            loop.close()
        except BaseException:
            _log.exception("the engine's thread died")
            self._call(self._lose, loop, "the engine was lost")
        else:
            self._call(self._ended.set_result, None)

    def _take_commands(self, loop: EngineLoop[Any], *, wait: bool) -> bool:
        """Runs every command that is there, waiting for one first if told to, until the loop has something to do of
        its own; returns whether to drain."""
        draining = False
        wait_s = loop.wakes_at - time.monotonic()
        try:
            command = self._inbox.get(wait and wait_s > 0, wait_s if math.isfinite(wait_s) and wait_s > 0 else None)
            while True:
                match command:
                    case RowBlock() | SessionBlock():
                        loop.submit(command)
                    case _Cancel():
                        loop.cancel(command.ids)
                    case _Question():
                        self._answer(loop, command)
                    case None:
                        draining = True
                command = self._inbox.get_nowait()
        except queue.Empty:
            return draining

    def _answer(self, loop: EngineLoop[Any], question: _Question) -> None:
        try:
            value = question.work(loop)
        except Exception as error:
            self._call(_settle, question.future, error, None)
        except BaseException:
            # The thread will not survive this; whoever asked must not wait for it.
            self._call(_settle, question.future, Unavailable(ENGINE_STOPPED), None)
            raise
        else:
            self._call(_settle, question.future, None, value)

    def _lose(self, loop: EngineLoop[Any] | None, reason: str) -> None:
        """On the event loop, the thread being dead: every row and every question gets its answer."""
        self._closed = True
        if loop is not None:
            loop.fail_all("the engine failed; its rows were not computed")
        while not self._inbox.empty():
            match self._inbox.get_nowait():
                case RowBlock() | SessionBlock() as block:
                    self._refuse(block)
                case _Question() as question:
                    _settle(question.future, Unavailable(reason), None)
        self._on_lost(reason)
        self._ended.set_result(None)

    def _call(self, function: Callable[..., object], *args: object) -> None:
        self._event_loop.call_soon_threadsafe(function, *args)


def _settle(future: asyncio.Future[ValueT], error: Exception | None, value: ValueT) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(value)
