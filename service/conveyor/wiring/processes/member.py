"""What every process of the server does beside its work: obey the one that watches, and tell what it counted."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import socket

from conveyor.lifecycle.phase import LAST_WRITES_S
from conveyor.settings import ServeSettings
from conveyor.telemetry.metrics import Metrics
from conveyor.wire.channel import Channel
from conveyor.wiring.processes.control import (
    CONTROL,
    Begin,
    Close,
    Collect,
    Collected,
    Drain,
    Failed,
    Idle,
    Open,
    Opened,
    Page,
    Ready,
    TellPage,
)

__all__ = ["Membership"]


class Membership:
    """This process as a part of the server. Event loop only.

    opened: set when the server takes requests.
    draining: set when it is to take in no more.
    closing: set when no front end has anything left to answer, or the grace is over.
    """

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.opened = asyncio.Event()
        self.draining = asyncio.Event()
        self.closing = asyncio.Event()
        self._begun: asyncio.Future[Begin] = asyncio.get_running_loop().create_future()
        self._numbers = itertools.count()
        self._pages: dict[int, asyncio.Future[bytes]] = {}
        self._leaving = asyncio.Event()
        self._left = asyncio.Event()
        self._channel: Channel | None = None

    async def join(self, control: socket.socket) -> tuple[Begin, ServeSettings]:
        """Learns what this process is to be."""
        self._channel = Channel(CONTROL, self._on_message, self._on_lost)
        await self._channel.open(control)
        begin = await self._begun
        return begin, ServeSettings(**json.loads(begin.settings))

    def say_ready(self, ready: Ready) -> None:
        """Tells that this process can do its work."""
        self._send(ready)

    def say_opened(self) -> None:
        """Tells that requests are taken."""
        self._send(Opened())

    def say_idle(self) -> None:
        """Tells that what was accepted is answered."""
        self._send(Idle())

    async def leave(self, failure: str | None = None) -> None:
        """Ends the connection once all is said.

        Args:
            failure: Why starting this process again would not help.
        """
        if failure is not None:
            self._send(Failed(failure))
        self._leaving.set()
        if self._channel is not None:
            self._channel.close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._left.wait(), LAST_WRITES_S)

    async def scrape(self) -> bytes:
        """The metrics of all processes, as a page."""
        number = next(self._numbers)
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._pages[number] = future
        self._send(TellPage(number))
        try:
            return await future
        finally:
            del self._pages[number]

    def _send(self, message: object) -> None:
        if self._channel is not None:
            self._channel.send(message)

    def _on_message(self, message: object) -> None:
        match message:
            case Begin():
                self._begun.set_result(message)
            case Open():
                self.opened.set()
            case Drain():
                self.draining.set()
            case Close():
                self.closing.set()
            case Collect(number):
                self._send(Collected(number, self.metrics.snapshot()))
            case Page(number, text):
                future = self._pages.get(number)
                if future is not None and not future.done():
                    future.set_result(text)

    def _on_lost(self) -> None:
        if not self._leaving.is_set():
            # Whoever watched is gone, and with it the sockets and every other process: nothing is left to serve.
            os._exit(1)
        self._left.set()
