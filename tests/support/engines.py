"""Engines that run as they do in the server: on a thread, or behind sockets as in a process of their own."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from typing import Any

import uvloop

from conveyor.engine.batching.backlog import BacklogLimits
from conveyor.engine.batching.policy import BatchLimits
from conveyor.engine.executors.port import Executor
from conveyor.engine.host import EngineHost
from conveyor.engine.inline import InlineEngine
from conveyor.wire.remote import RemoteEngine

__all__ = ["HostedEngine"]

_WITHIN_S = 60.0


class HostedEngine:
    """An engine and its host on an event loop of their own, in a thread that stands for a process."""

    def __init__(self, executor: Executor[Any], backlog: BacklogLimits, batch: BatchLimits) -> None:
        self._executor = executor
        self._limits = backlog, batch
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._main, daemon=True)
        self._thread.start()
        assert self._started.wait(_WITHIN_S)

    async def front_end(self, on_lost: Callable[[], None] = lambda: None) -> RemoteEngine:
        """The engine as one more front end sees it."""
        one, another = socket.socketpair()
        self._loop.call_soon_threadsafe(self._host.accept, another)
        return await RemoteEngine.open(one, on_lost)

    def stop(self) -> None:
        """Ends it as a process that is killed ends: its sockets are closed, nobody is told anything."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(_WITHIN_S)
            assert not self._thread.is_alive()

    def _main(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        engine = InlineEngine(self._executor, *self._limits, lambda _: self._stop.set())
        self._host = EngineHost(engine, lambda _: None)
        self._started.set()
        await self._stop.wait()
        await self._host.close()
