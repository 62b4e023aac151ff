"""Several engines as one: rows go to whichever has least to do, models to all, and engines come and go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import structlog

from conveyor.domain import ModelKey
from conveyor.errors import PackageError, Unavailable
from conveyor.wire.port import EnginePort, EngineStats, ReplySink, SessionCounts, Work
from conveyor.wire.sessions import SessionBlock, SessionCall, SessionState, engine_of

__all__ = ["EngineFleet", "Member"]

_log = structlog.get_logger(__name__)

_NONE_LEFT = "no engine is running; it is being started again"
_AWAY = "the engine that has the session was lost; it is being started again"

# Rows that stay together: with fewer in each engine, the batches there would be small and dear.
_ROWS_TOGETHER = 16

KeyT = TypeVar("KeyT")


class Member(EnginePort, Protocol):
    """An engine of a fleet."""

    @property
    def outstanding(self) -> int:
        """Rows it has not answered yet."""


class EngineFleet:
    """`EnginePort` over the engines that live. Event loop only.

    Args:
        on_available: Told False when the last engine is lost, and True when one is back with every model.
        num_engines: How many there should be; a session belongs to one of them, also while that is away.
    """

    def __init__(self, on_available: Callable[[bool], None], num_engines: int = 1) -> None:
        self._on_available = on_available
        self._num_engines = num_engines
        self._members: list[Member] = []
        # By their number among those there should be.
        self._numbered: dict[int, Member] = {}
        self._models: dict[ModelKey, Path] = {}
        self._change = asyncio.Lock()

    async def attach(self, member: Member, number: int = 0) -> None:
        """Puts an engine to work, after it has loaded what the others have.

        Args:
            number: Its number, from 0 on, of all that there should be.

        Raises:
            ConveyorError: It was lost meanwhile, or could not load a model.
        """
        member.connect(self._sink)
        async with self._change:
            for key, directory in self._models.items():
                try:
                    await member.load(key, directory)
                except PackageError as error:
                    # The others still serve; rows of this one fail there.
                    _log.error("an engine that was started refused a model", model=key.name, reason=error.message)
            # Raises for one that was lost since; from here on, losing it detaches it.
            await member.stats()
            self._members.append(member)
            self._numbered[number] = member
        if len(self._members) == 1:
            self._on_available(True)

    def detach(self, member: Member) -> None:
        """Forgets an engine that was lost."""
        if member in self._members:
            self._members.remove(member)
            self._numbered = {number: other for number, other in self._numbered.items() if other is not member}
            if not self._members:
                self._on_available(False)

    def connect(self, sink: ReplySink) -> None:
        """Sets where replies go."""
        self._sink = sink

    def submit(self, block: Work) -> None:
        """Sends rows to the engines that have least to do, and what is for sessions to those that have them."""
        if isinstance(block, SessionBlock):
            self._submit_to_sessions(block)
        elif not self._members:
            self._sink(block.refused(_NONE_LEFT))
        elif len(self._members) == 1:
            self._members[0].submit(block)
        else:
            for first in range(0, len(block.ids), _ROWS_TOGETHER):
                piece = block.rows(first, first + _ROWS_TOGETHER)
                min(self._members, key=lambda member: member.outstanding).submit(piece)

    def _submit_to_sessions(self, block: SessionBlock) -> None:
        owners = engine_of(block.sessions, self._num_engines)
        for number in np.unique(owners).tolist():
            mine = owners == number
            piece = block if mine.all() else block.rows(mine)
            member = self._numbered.get(number)
            if member is None:
                self._sink(piece.refused(_AWAY))
            else:
                member.submit(piece)

    async def session(self, call: SessionCall) -> SessionState:
        """Asks the engine that has the session."""
        number = int(engine_of(np.frombuffer(call.session, dtype=np.uint8)[None], self._num_engines)[0])
        member = self._numbered.get(number)
        if member is None:
            raise Unavailable(_AWAY)
        return await member.session(call)

    def cancel(self, ids: Collection[int]) -> None:
        """Drops rows nobody waits for."""
        for member in self._members:
            member.cancel(ids)

    async def load(self, key: ModelKey, directory: Path) -> None:
        """Loads a package on every engine."""
        async with self._change:
            if not self._members:
                raise Unavailable(_NONE_LEFT)
            await asyncio.gather(*(member.load(key, directory) for member in self._members))
            self._models[key] = directory

    async def unload(self, key: ModelKey) -> None:
        """Forgets a model on every engine."""
        async with self._change:
            self._models.pop(key, None)
            await asyncio.gather(*(member.unload(key) for member in self._members))

    async def stats(self) -> EngineStats:
        """All engines together; what each kind of work costs is told by the first of them."""
        asked = await asyncio.gather(*(member.stats() for member in self._members), return_exceptions=True)
        # One that is lost meanwhile is no reason not to hear the others.
        found = [stats for stats in asked if isinstance(stats, EngineStats)]
        if not found:
            raise Unavailable(_NONE_LEFT)
        return replace(
            found[0],
            queued_rows=_sum([stats.queued_rows for stats in found]),
            device_memory_bytes=_sum([stats.device_memory_bytes for stats in found]),
            sessions=_sum_sessions([stats.sessions for stats in found]),
            engines=sum(stats.engines for stats in found),
        )

    async def drain(self) -> None:
        """Waits for the rows that were accepted, then leaves all engines."""
        await asyncio.gather(*(member.drain() for member in self._members))


def _sum_sessions(counts: list[Mapping[ModelKey, SessionCounts]]) -> dict[ModelKey, SessionCounts]:
    found = {}
    for key in {key for count in counts for key in count}:
        mine = [count[key] for count in counts if key in count]
        found[key] = SessionCounts(
            sum(count.live for count in mine),
            _sum([count.state_bytes for count in mine]),
            _sum([count.evicted for count in mine]),
            _sum([count.moved for count in mine]),
        )
    return found


def _sum(counts: list[Mapping[KeyT, int]]) -> dict[KeyT, int]:
    keys = {key for count in counts for key in count}
    return {key: sum(count.get(key, 0) for count in counts) for key in keys}
