"""The engine port over a channel: an engine that lives in another process, as one front end sees it."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path

import numpy as np

from conveyor.domain import ModelKey
from conveyor.errors import Unavailable
from conveyor.wire.channel import Channel
from conveyor.wire.messages import FailureBlock, ResultBlock, RowBlock
from conveyor.wire.port import ENGINE_STOPPED, EngineStats, ReplySink, Work
from conveyor.wire.seam import SEAM, Answered, AskSession, Cancel, LoadModel, TellStats, UnloadModel
from conveyor.wire.sessions import SessionCall, SessionResults, SessionState

__all__ = ["RemoteEngine"]

_LOST = "the engine was lost; it is being started again"


class RemoteEngine:
    """`EnginePort` over a connected socket. All methods are called from one event loop.

    Args:
        on_lost: Called once when the connection is gone; every row and every question it had was answered before.
    """

    def __init__(self, on_lost: Callable[[], None]) -> None:
        self._on_lost = on_lost
        self._channel: Channel | None = None
        self._numbers = itertools.count()
        self._questions: dict[int, asyncio.Future[Answered]] = {}
        # Rows that are not answered, with their model: what is failed if the engine is lost.
        self._rows: dict[int, ModelKey] = {}
        self._drained = asyncio.Event()
        self._left = asyncio.Event()
        self._draining = False

    @classmethod
    async def open(cls, connected: socket.socket, on_lost: Callable[[], None]) -> RemoteEngine:
        """Takes over one end of a socket pair whose other end an `EngineHost` has."""
        engine = cls(on_lost)
        engine._channel = Channel(SEAM, engine._on_message, engine._lose)
        await engine._channel.open(connected)
        return engine

    @property
    def outstanding(self) -> int:
        """Rows that are not answered yet."""
        return len(self._rows)

    def connect(self, sink: ReplySink) -> None:
        """Sets where replies go."""
        self._sink = sink

    def submit(self, block: Work) -> None:
        """Sends the rows of a block."""
        if self._channel is None or self._draining:
            self._sink(block.refused(ENGINE_STOPPED if self._draining else _LOST))
            return
        ids = block.ids if isinstance(block, RowBlock) else block.ids.tolist()
        self._rows.update(dict.fromkeys(ids, block.model))
        self._channel.send(block)

    def cancel(self, ids: Collection[int]) -> None:
        """Drops rows nobody waits for."""
        mine = [row_id for row_id in ids if self._rows.pop(row_id, None)]
        if mine and self._channel is not None:
            self._channel.send(Cancel(np.array(mine, dtype=np.int64)))
        self._answered()

    async def session(self, call: SessionCall) -> SessionState:
        """Does what a call asks with a session."""
        answer = await self._ask(lambda number: AskSession(number, call))
        assert answer.session is not None
        return answer.session

    async def load(self, key: ModelKey, directory: Path) -> None:
        """Loads and warms a package; the engine reads it from the same file system."""
        await self._ask(lambda number: LoadModel(number, key, directory.absolute()))

    async def unload(self, key: ModelKey) -> None:
        """Forgets a model."""
        await self._ask(lambda number: UnloadModel(number, key))

    async def stats(self) -> EngineStats:
        """The engine as of now."""
        answer = await self._ask(TellStats)
        assert answer.stats is not None
        return answer.stats

    async def drain(self) -> None:
        """Waits for the rows that were accepted, then leaves the engine, which others may go on using."""
        self._draining = True
        self._answered()
        await self._drained.wait()
        self.close()
        await self._left.wait()

    def close(self) -> None:
        """Leaves the engine; rows that are not answered fail."""
        if self._channel is not None:
            self._channel.close()

    def _ask(self, question: Callable[[int], object]) -> Awaitable[Answered]:
        future: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        if self._channel is None:
            future.set_exception(Unavailable(_LOST))
        else:
            number = next(self._numbers)
            self._questions[number] = future
            self._channel.send(question(number))
        return future

    def _on_message(self, message: object) -> None:
        match message:
            case ResultBlock() | SessionResults():
                for row_id in message.ids.tolist():
                    self._rows.pop(row_id, None)
                self._sink(message)
                self._answered()
            case FailureBlock():
                for row_id in message.ids:
                    self._rows.pop(row_id, None)
                self._sink(message)
                self._answered()
            case Answered():
                future = self._questions.pop(message.number)
                if future.done():
                    return
                if message.fault is not None:
                    future.set_exception(message.fault.to_error())
                else:
                    future.set_result(message)

    def _answered(self) -> None:
        if self._draining and not self._rows:
            self._drained.set()

    def _lose(self) -> None:
        self._channel = None
        by_model: dict[ModelKey, list[int]] = {}
        for row_id, model in self._rows.items():
            by_model.setdefault(model, []).append(row_id)
        self._rows.clear()
        for model, ids in by_model.items():
            self._sink(FailureBlock(model, ids, Unavailable.__name__, _LOST))
        questions, self._questions = self._questions, {}
        for future in questions.values():
            if not future.done():
                future.set_exception(Unavailable(_LOST))
        self._answered()
        self._left.set()
        self._on_lost()
