"""One engine behind several front ends: their rows in, each one's answers out."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from conveyor.domain import ModelKey
from conveyor.lifecycle.background import Background
from conveyor.lifecycle.phase import LAST_WRITES_S
from conveyor.wire.channel import Channel
from conveyor.wire.messages import BatchReport, FailureBlock, ResultBlock, RowBlock
from conveyor.wire.port import EnginePort, EngineStats, Reply
from conveyor.wire.seam import SEAM, Answered, AskSession, Cancel, Fault, LoadModel, TellStats, UnloadModel
from conveyor.wire.sessions import SessionBlock, SessionResults, SessionState

__all__ = ["EngineHost"]

# An id in the engine is the front end's number above these bits and its own id below: a front end that takes in
# ten thousand rows a second comes to their end after five hundred years.
_ID_BITS = 47
_OWN_ID = (1 << _ID_BITS) - 1


@dataclass(slots=True, eq=False)
class _FrontEnd:
    """A connection. rows: ids in the engine that are not answered. models: what it asked to load."""

    number: int
    channel: Channel | None = None
    rows: set[int] = field(default_factory=set)
    models: set[ModelKey] = field(default_factory=set)


class EngineHost:
    """Serves an engine to the front ends that are attached. Event loop only.

    A model is loaded once, whoever asks, and stays until nobody who is attached wants it.

    Args:
        engine: The engine; this host becomes its sink.
        observe: Told what each execution cost.
    """

    def __init__(self, engine: EnginePort, observe: Callable[[BatchReport], None]) -> None:
        self._engine = engine
        self._observe = observe
        self._numbers = itertools.count(1)
        self._front_ends: dict[int, _FrontEnd] = {}
        self._loads: dict[ModelKey, asyncio.Future[None]] = {}
        self._background = Background()
        self._alone = asyncio.Event()
        self._alone.set()
        engine.connect(self._on_reply)

    def accept(self, connected: socket.socket) -> None:
        """Serves the front end at the other end of a socket pair, until it goes."""
        self._background.start(self._attach(connected))

    async def close(self) -> None:
        """Leaves all front ends, once what was answered is written."""
        for front_end in list(self._front_ends.values()):
            if front_end.channel is not None:
                front_end.channel.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WRITES_S):
                await self._alone.wait()

    async def _attach(self, connected: socket.socket) -> None:
        front_end = _FrontEnd(next(self._numbers))
        self._front_ends[front_end.number] = front_end
        self._alone.clear()
        front_end.channel = Channel(
            SEAM, lambda message: self._on_message(front_end, message), lambda: self._on_lost(front_end)
        )
        await front_end.channel.open(connected)

    def _on_message(self, front_end: _FrontEnd, message: object) -> None:
        first = front_end.number << _ID_BITS
        match message:
            case RowBlock():
                # In place: what was received is nobody else's.
                message.ids[:] = [first + row_id for row_id in message.ids]
                message.requests[:] = [first + request for request in message.requests]
                front_end.rows.update(message.ids)
                self._engine.submit(message)
            case SessionBlock():
                np.add(message.ids, first, out=message.ids)
                front_end.rows.update(message.ids.tolist())
                self._engine.submit(message)
            case Cancel():
                ids = (message.ids + first).tolist()
                front_end.rows.difference_update(ids)
                self._engine.cancel(ids)
            case LoadModel(number, key, directory):
                self._background.start(self._answer(front_end, number, self._load(front_end, key, directory)))
            case UnloadModel(number, key):
                self._background.start(self._answer(front_end, number, self._unload(front_end, key)))
            case TellStats(number):
                self._background.start(self._answer(front_end, number, self._engine.stats()))
            case AskSession(number, call):
                self._background.start(self._answer(front_end, number, self._engine.session(call)))

    async def _answer(
        self, front_end: _FrontEnd, number: int, work: Awaitable[EngineStats | SessionState | None]
    ) -> None:
        try:
            match await work:
                case EngineStats() as stats:
                    answer = Answered(number, stats=stats)
                case SessionState() as session:
                    answer = Answered(number, session=session)
                case None:
                    answer = Answered(number)
        except Exception as error:
            # Whatever it is: who asked must not wait for ever.
            answer = Answered(number, fault=Fault.of(error))
        if front_end.channel is not None:
            front_end.channel.send(answer)

    async def _load(self, front_end: _FrontEnd, key: ModelKey, directory: Path) -> None:
        front_end.models.add(key)
        loading = self._loads.get(key)
        if loading is None:
            loading = self._loads[key] = asyncio.ensure_future(self._engine.load(key, directory))
        try:
            await loading
        except Exception:
            front_end.models.discard(key)
            if self._loads.get(key) is loading:
                del self._loads[key]
            raise

    async def _unload(self, front_end: _FrontEnd, key: ModelKey) -> None:
        front_end.models.discard(key)
        if key in self._loads and not any(key in other.models for other in self._front_ends.values()):
            del self._loads[key]
            await self._engine.unload(key)

    def _on_lost(self, front_end: _FrontEnd) -> None:
        """Its rows are nobody's. Its models stay: it is started again, and will want them."""
        front_end.channel = None
        del self._front_ends[front_end.number]
        if not self._front_ends:
            self._alone.set()
        self._engine.cancel(front_end.rows)

    def _on_reply(self, reply: Reply) -> None:
        if isinstance(reply, ResultBlock | SessionResults):
            self._observe(reply.report)
            self._send_results(reply)
            return
        owners: dict[int, list[int]] = {}
        for row_id in reply.ids:
            owners.setdefault(row_id >> _ID_BITS, []).append(row_id)
        for number, ids in owners.items():
            own_ids = [row_id & _OWN_ID for row_id in ids]
            self._send(number, ids, FailureBlock(reply.model, own_ids, reply.error, reply.message))

    def _send_results(self, results: ResultBlock | SessionResults) -> None:
        if len(results.ids) == 0:
            # Every row of the execution failed, and is told so in a block of its own.
            return
        rows = sum([len(front_end.rows) for front_end in self._front_ends.values()])
        owners = results.ids >> _ID_BITS
        numbers = set(owners.tolist())
        for number in numbers:
            # Every part tells what the whole execution cost.
            part, report = results, results.report
            if len(numbers) > 1:
                mine = owners == number
                part, report = results.rows(mine), replace(report, queue_s=report.queue_s[mine])
            own = len(self._front_ends[number].rows) if number in self._front_ends else 0
            if rows != own:
                report = replace(report, rows_elsewhere=rows - own)
            self._send(number, part.ids.tolist(), replace(part, ids=part.ids & _OWN_ID, report=report))

    def _send(self, number: int, ids: list[int], message: Reply) -> None:
        front_end = self._front_ends.get(number)
        if front_end is not None and front_end.channel is not None:
            front_end.rows.difference_update(ids)
            front_end.channel.send(message)
