"""The engine port over a simulated process: the real engine loop, on its own clock, behind a network."""

from __future__ import annotations

import asyncio
from bisect import insort
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from conveyor.domain import ModelKey
from conveyor.engine.batching.backlog import BacklogLimits
from conveyor.engine.batching.policy import BatchLimits
from conveyor.engine.executors.port import Executor
from conveyor.engine.loop import EngineLoop, Measure
from conveyor.engine.warmup import measure_costs
from conveyor.errors import Unavailable
from conveyor.simulation.executor import DeviceClock
from conveyor.simulation.network import Network
from conveyor.wire.messages import RowBlock
from conveyor.wire.port import ENGINE_STOPPED, EngineStats, Reply, ReplySink, Work
from conveyor.wire.sessions import SessionBlock, SessionCall, SessionState

__all__ = ["EngineLost", "SimulatedEngine"]

ValueT = TypeVar("ValueT")

# Steps in a row that neither take time nor come to an end: an engine that turns without getting anywhere.
_MOST_IDLE_STEPS = 1000


class EngineLost(BaseException):
    """The engine's process dies; an executor raises it. Not an `Exception`: the engine must not survive it."""


@dataclass(frozen=True, slots=True)
class _Cancel:
    """Drop these rows."""

    ids: Collection[int]


@dataclass(frozen=True, slots=True)
class _Question:
    """Work for the engine whose outcome a future takes."""

    work: Callable[[EngineLoop[Any]], object]
    future: asyncio.Future[Any]


_Command = Work | _Cancel | _Question


class SimulatedEngine:
    """`EnginePort` whose engine is a sequence of events on the front end's loop, each at the engine's own time.

    At an event the engine takes the commands that have arrived by then, makes one step, and has its next event at the
    step's end, so that front end and engine run side by side although one thread runs both. A front end that is held
    up does not hold up the engine: its events are then made up for, at the times they had.

    Args:
        executor: Moves `clock` on; may raise `EngineLost` while it computes.
        clock: The engine's.
        network: Delays messages in both directions.
        measure: Finds out what a model costs when it is loaded.
    """

    def __init__(
        self,
        executor: Executor[Any],
        clock: DeviceClock,
        backlog_limits: BacklogLimits,
        batch_limits: BatchLimits,
        network: Network,
        measure: Measure = measure_costs,
    ) -> None:
        self._clock = clock
        self._network = network
        self._engine: EngineLoop[Any] = EngineLoop(executor, backlog_limits, batch_limits, self._reply, clock, measure)
        # Commands with when they reach the engine, in that order.
        self._inbox: deque[tuple[float, _Command]] = deque()
        self._next_step: asyncio.TimerHandle | None = None
        self._closed = False
        self._lost = False
        self._idle_steps = 0
        self._step_started = 0.0

    @property
    def step_started(self) -> float:
        """When the engine last took commands; monotonic seconds."""
        return self._step_started

    @property
    def idle(self) -> bool:
        """Whether the engine has nothing to do and nothing is on its way to it."""
        return self._engine.idle and not self._inbox and self._clock.now <= self._event_loop.time()

    def connect(self, sink: ReplySink) -> None:
        """Sets where replies go."""
        self._event_loop = asyncio.get_running_loop()
        self._sink = sink
        self._ended: asyncio.Future[None] = self._event_loop.create_future()

    def submit(self, block: Work) -> None:
        """Queues the rows of a block."""
        if self._closed:
            self._refuse(block)
        else:
            self._send(block)

    def cancel(self, ids: Collection[int]) -> None:
        """Drops rows nobody waits for."""
        self._send(_Cancel(ids))

    def session(self, call: SessionCall) -> Awaitable[SessionState]:
        """Does what a call asks with a session."""
        return self._ask(lambda engine: engine.session(call))

    def load(self, key: ModelKey, directory: Path) -> Awaitable[None]:
        """Loads a model."""
        return self._ask(lambda engine: engine.load(key, directory))

    def unload(self, key: ModelKey) -> Awaitable[None]:
        """Forgets a model."""
        return self._ask(lambda engine: engine.unload(key))

    def stats(self) -> Awaitable[EngineStats]:
        """The engine as of now."""
        return self._ask(lambda engine: engine.stats())

    async def drain(self) -> None:
        """Finishes what was accepted."""
        self._closed = True
        self._end_if_done()
        await self._ended

    def _ask(self, work: Callable[[EngineLoop[Any]], ValueT]) -> Awaitable[ValueT]:
        future: asyncio.Future[ValueT] = self._event_loop.create_future()
        if self._closed:
            future.set_exception(Unavailable("the engine has stopped"))
        else:
            self._send(_Question(work, future))
        return future

    def _refuse(self, block: Work) -> None:
        self._sink(block.refused(ENGINE_STOPPED))

    # The engine's side

    def _send(self, command: _Command) -> None:
        if self._ended.done():
            return
        arrival = self._network.arrival(self._event_loop.time(), to_engine=True)
        insort(self._inbox, (arrival, command), key=_arrival)
        # An engine that is idle waits for the first command; one that works looks at the end of its step.
        if self._engine.idle and not self._lost:
            self._plan_step(self._inbox[0][0])

    def _plan_step(self, when: float) -> None:
        if self._next_step is not None:
            self._next_step.cancel()
        when = max(when, self._clock.now)
        self._next_step = self._event_loop.call_at(when, self._step, when)

    def _step(self, when: float) -> None:
        self._next_step = None
        self._clock.now = self._step_started = when
        try:
            while self._inbox and self._inbox[0][0] <= when:
                _, command = self._inbox.popleft()
                match command:
                    case RowBlock() | SessionBlock():
                        self._engine.submit(command)
                    case _Cancel():
                        self._engine.cancel(command.ids)
                    case _Question():
                        self._answer(command)
            self._engine.step()
        except EngineLost:
            self._lost = True
            self._event_loop.call_at(self._network.arrival(self._clock.now, to_engine=False), self._lose)
            return
        self._idle_steps = self._idle_steps + 1 if self._clock.now == when else 0
        assert self._idle_steps < _MOST_IDLE_STEPS, "the engine turns without getting anywhere"
        if not self._engine.idle:
            self._plan_step(self._clock.now)
        elif self._inbox:
            self._plan_step(self._inbox[0][0])
        else:
            self._end_if_done()

    def _answer(self, question: _Question) -> None:
        try:
            value = question.work(self._engine)
        except Exception as error:
            self._deliver(_settle, question.future, error, None)
        else:
            self._deliver(_settle, question.future, None, value)

    def _reply(self, reply: Reply) -> None:
        self._deliver(self._sink, reply)

    def _deliver(self, function: Callable[..., object], *args: object) -> None:
        self._event_loop.call_at(self._network.arrival(self._clock.now, to_engine=False), function, *args)

    def _end_if_done(self) -> None:
        if self._closed and self._engine.idle and not self._inbox and not self._ended.done():
            # Behind the last replies.
            self._event_loop.call_at(self._clock.now + self._network.longest_s, _settle, self._ended, None, None)

    def _lose(self) -> None:
        """The front end learns that the engine is gone: every row and every question gets its answer."""
        self._closed = True
        self._engine.fail_all("the engine failed; its rows were not computed")
        for _, command in self._inbox:
            match command:
                case RowBlock() | SessionBlock():
                    self._refuse(command)
                case _Question():
                    _settle(command.future, Unavailable("the engine was lost"), None)
        self._inbox.clear()
        _settle(self._ended, None, None)


def _arrival(entry: tuple[float, _Command]) -> float:
    return entry[0]


def _settle(future: asyncio.Future[ValueT], error: Exception | None, value: ValueT) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(value)
