"""The sessions of all models of an engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import structlog

from conveyor.domain import ModelKey
from conveyor.engine.batching.costs import CostTable
from conveyor.engine.executors.port import Executor
from conveyor.engine.outbox import Outbox
from conveyor.engine.sessions.calls import SessionCalls
from conveyor.engine.sessions.desk import SessionDesk
from conveyor.engine.sessions.life import SessionLife
from conveyor.engine.sessions.options import SessionOptions
from conveyor.engine.sessions.store import StateDirectory
from conveyor.engine.sessions.turns import SessionTurns
from conveyor.engine.sessions.waiting import WaitingSteps
from conveyor.errors import ConveyorError, Internal, InvalidArgument, NotFound, Unavailable
from conveyor.features.streams import StreamEncoder
from conveyor.repository.digest import package_digest
from conveyor.wire.port import SessionCounts
from conveyor.wire.sessions import SessionBlock, SessionCall, SessionState

__all__ = ["ModelSessions", "SessionRunner"]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class ModelSessions:
    """The parts that have to do with the sessions of one model. Equal to itself only: it takes turns on the device."""

    desk: SessionDesk
    turns: SessionTurns
    calls: SessionCalls
    life: SessionLife


class SessionRunner:
    """Takes what is asked of sessions, and gives each model's their turn when told to. Same thread as the engine.

    A model's part is made when something is first asked of its sessions, so models without any cost nothing.

    Raises:
        OSError: The state directory can't be used.
    """

    def __init__(
        self,
        executor: Executor[Any],
        options: SessionOptions,
        outbox: Outbox,
        clock: Callable[[], float],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._executor = executor
        self._options = options
        self._outbox = outbox
        self._clock = clock
        self._wall = wall
        self._directories: dict[ModelKey, tuple[Path, CostTable]] = {}
        self._models: dict[ModelKey, ModelSessions] = {}
        self._retired: dict[ModelKey, SessionCounts] = {}
        self._stored = (
            StateDirectory(options.state_dir, options.engine, options.num_engines) if options.state_dir else None
        )

    @property
    def waiting(self) -> Collection[ModelSessions]:
        """The models whose sessions can use the device now."""
        return [sessions for sessions in self._models.values() if sessions.desk.busy]

    @property
    def wakes_at(self) -> float:
        """When something is to be done although nobody asks for anything; monotonic seconds."""
        return min((sessions.life.wakes_at for sessions in self._models.values()), default=float("inf"))

    def load(self, key: ModelKey, directory: Path, costs: CostTable) -> None:
        """A model can be asked for sessions from now on."""
        self._directories[key] = directory, costs
        if self._stored is not None:
            # So that sessions from before are counted, and end in time, though nobody asks for them.
            try:
                self._of(key)
            except InvalidArgument:
                # It takes no sessions.
                return

    def unload(self, key: ModelKey) -> ModelSessions | None:
        """A model is gone; its sessions stay in the state directory, if there is one, and end if not. Returns what
        takes no turns any more."""
        sessions = self._models.pop(key, None)
        del self._directories[key]
        if sessions is not None:
            sessions.desk.give_up(Unavailable, f"model {key.name!r} version {key.version} was unloaded")
            self._retired[key] = sessions.life.retire("unloaded")
        return sessions

    def submit(self, block: SessionBlock) -> None:
        """Takes rows; what can't be taken is answered at once."""
        try:
            self._of(block.model).desk.submit(block)
        except ConveyorError as error:
            self._outbox.fail(block.model, block.ids.tolist(), type(error), error.message)

    def call(self, call: SessionCall) -> SessionState:
        """Answers a question.

        Raises:
            ConveyorError: It can't be done.
        """
        return self._of(call.model).calls.answer(call)

    def cancel(self, ids: Collection[int]) -> None:
        """Drops rows nobody waits for."""
        for sessions in self._models.values():
            if sessions.desk.busy:
                sessions.desk.cancel(ids)

    def keep_house(self) -> None:
        """Answers what is late, ends what is idle, and writes some of what changed or finds no room in memory."""
        now = self._clock()
        for sessions in self._models.values():
            sessions.desk.expire(now)
            try:
                sessions.life.sweep(now)
                sessions.life.residence.trim()
                if sessions.life.save_some(now) and self._stored is not None:
                    self._stored.tidy()
            except Unavailable as error:
                # Sessions go on in memory, and it is tried again.
                _log.error("the state directory fails", model=sessions.desk.model.name, reason=error.message)

    def ids(self, key: ModelKey) -> list[int]:
        """The rows of a model that wait or are under way."""
        sessions = self._models.get(key)
        return sessions.desk.ids() if sessions is not None else []

    def fail_all(self, message: str) -> None:
        """Fails every row, for an engine that can't go on."""
        for sessions in self._models.values():
            sessions.desk.fail_all(Internal, message)

    def close(self) -> None:
        """Writes all sessions to the state directory; nothing may wait."""
        for sessions in self._models.values():
            sessions.life.save_all()
        if self._stored is not None:
            self._stored.close()

    def counts(self) -> Mapping[ModelKey, SessionCounts]:
        """By model, the unloaded ones included: what was counted stays counted."""
        return self._retired | {key: sessions.life.counts() for key, sessions in self._models.items()}

    def _of(self, key: ModelKey) -> ModelSessions:
        found = self._models.get(key)
        return found if found is not None else self._make(key)

    def _make(self, key: ModelKey) -> ModelSessions:
        if key not in self._directories:
            raise NotFound(f"model {key.name!r} is not loaded")
        directory, costs = self._directories[key]
        states = self._executor.session_states(key)
        package = lru_cache(lambda: package_digest(directory))
        stored = self._stored.sessions(key, package()) if self._stored is not None else None
        encoder = StreamEncoder(states.series)
        waiting = WaitingSteps(len(states.series.features))
        life = SessionLife(states, self._options, stored, waiting.sessions, self._clock, self._wall)
        life.count_on(self._retired.pop(key, None))
        desk = SessionDesk(key, life, waiting, encoder, self._options, self._outbox, self._clock)
        turns = SessionTurns(desk, states, encoder, costs, self._options, self._outbox, self._clock)
        self._models[key] = ModelSessions(desk, turns, SessionCalls(desk, package, self._options), life)
        return self._models[key]
