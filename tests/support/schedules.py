"""Random schedules of requests and faults on a fake clock, each drawn from a seed, and what must hold in every one.

To run one again, or many more, from the folder above this one:
`python -m support.schedules --first 17 --count 1`
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import structlog

from conveyor.domain import ModelKey
from conveyor.engine.batching.backlog import BacklogLimits
from conveyor.engine.batching.policy import BatchLimits
from conveyor.errors import ConveyorError
from conveyor.gateway.admission import Admission
from conveyor.gateway.call import Call
from conveyor.gateway.dispatcher import Dispatcher
from conveyor.simulation.engine import SimulatedEngine
from conveyor.simulation.executor import DeviceClock
from conveyor.simulation.network import Network
from conveyor.simulation.virtual_time import VirtualTimeLoop, run
from conveyor.wire.messages import NORMAL_PRIORITY, PRIORITIES, Inputs, Rows
from support.executors import FAILS, NOT_FINITE
from support.faults import COSTS, DeviceFaults, FaultyExecutor, Ledger, RecordingEngine, measured

__all__ = ["Played", "Schedule", "draw", "play", "play_many"]

MODEL, OTHER = ModelKey("m", "1"), ModelKey("other", "1")

# Rows over 256 steps are run in chunks of this engine.
BATCH_LIMITS = BatchLimits(rows=8, padded_steps=2000, slice_s=0.0006, lane_rows=3)
# Rows × steps of an execution: two rows of most lengths; a short row; a fraction of most rows.
ROOMS = (1024, 400, 48)
HELD_ROOM = 1000
MOST_ROWS = 1000
LONGEST = 700
# By value.
_CONSTANT = [np.full((LONGEST, 1), value, dtype=np.int32) for value in range(10)]
TIMEOUT_S = 300.0
# No row's sum comes near the next row's number.
ROW_NUMBER = 10_000
# Beyond what the table says of a row alone: rounding, chunks, and what an estimate leaves out.
SLACK = 3.0


@dataclass(frozen=True, slots=True)
class Content:
    """The rows of a request, the first step of each that has any being its number times `ROW_NUMBER`; their sums."""

    rows: Sequence[Inputs]
    sums: Sequence[float]
    poisoned: bool


@dataclass(frozen=True, slots=True)
class Request:
    """What one client does.

    patience_s: from the start to its deadline; infinite if it sets none.
    cancel_s: from the start to when it leaves; infinite if it stays.
    pickup_s: how long it leaves the answer lying.
    """

    start: float
    model: ModelKey
    content: Content
    priority: int
    patience_s: float
    cancel_s: float
    pickup_s: float


@dataclass(frozen=True, slots=True)
class Schedule:
    """What happens, all of it drawn from the seed. To be played once.

    chance: where delays and failures are drawn from, as they come.
    stalls: when the front end is held up, and for how long.
    unload_at, drain_at: when a model is unloaded, and when the engine is drained; infinite if never.
    """

    chance: random.Random
    requests: Sequence[Request]
    longest_delay_s: float
    ordered: bool
    backlog_rows: int
    admitted_rows: int
    device: DeviceFaults
    stalls: Sequence[tuple[float, float]]
    unload_at: float
    drain_at: float


def draw(seed: int) -> Schedule:
    """The schedule of a seed. Most are small, one of ten is large; what goes wrong is drawn alike in both."""
    chance = random.Random(seed)
    drawn = chance.random

    def sometimes(probability: float, value: float) -> float:
        return value if drawn() < probability else math.inf

    def one_of(options: Sequence[float]) -> float:
        return options[int(drawn() * len(options))]

    def between(first: int, last: int) -> int:
        return first + int(drawn() * (last + 1 - first))

    numbers = iter(range(1, MOST_ROWS))

    def content(num_rows: int) -> Content:
        rows: list[Inputs] = []
        sums = []
        poisoned = False
        for _ in range(num_rows):
            kind = drawn()
            length = between(0, 12) if kind < 0.6 else between(10, 60) if kind < 0.9 else between(257, LONGEST)
            value, number = between(1, 9), next(numbers) * ROW_NUMBER
            row = _CONSTANT[value][:length].copy()
            if length:
                row[0, 0] = number
            if length > 1 and drawn() < 0.03:
                row[between(1, length - 1), 0] = FAILS if drawn() < 0.5 else NOT_FINITE
                poisoned = True
            rows.append(row)
            sums.append(float(number + (length - 1) * value) if length else 0.0)
        return Content(rows, sums, poisoned)

    span_s = one_of((0.0, 0.002, 0.01))
    requests = [
        Request(
            start=drawn() * span_s,
            model=OTHER if drawn() < 0.2 else MODEL,
            content=content(20 if drawn() < 0.03 else between(1, 3)),
            priority=PRIORITIES[between(0, 2)],
            patience_s=sometimes(0.3, drawn() * one_of((0.001, 0.005))),
            cancel_s=sometimes(0.2, drawn() * 0.003),
            pickup_s=one_of((0.0, 0.0, 0.005)),
        )
        for _ in range(between(1, 3) if drawn() < 0.9 else between(4, 16))
    ]
    slow_from = sometimes(0.15, drawn() * 0.01)
    return Schedule(
        chance=chance,
        requests=requests,
        longest_delay_s=one_of((0.0, 1e-4, 2e-3)),
        ordered=drawn() < 0.5,
        backlog_rows=4 if drawn() < 0.15 else MOST_ROWS,
        admitted_rows=5 if drawn() < 0.15 else MOST_ROWS,
        device=DeviceFaults(
            lost_at=between(1, 15) if drawn() < 0.2 else None,
            failing=0.2 if drawn() < 0.15 else 0.0,
            room=one_of(ROOMS) if drawn() < 0.25 else math.inf,
            held_room=HELD_ROOM if drawn() < 0.25 else math.inf,
            alone=drawn() < 0.15,
            in_rows=any(request.content.poisoned for request in requests),
            slow=(slow_from, slow_from + drawn() * 0.01),
        ),
        stalls=[(drawn() * 0.01, drawn() * 0.005) for _ in range(2)] if drawn() < 0.25 else [],
        unload_at=sometimes(0.1, drawn() * 0.01),
        drain_at=sometimes(0.1, drawn() * 0.01),
    )


@dataclass
class Played:
    """What became of schedules.

    outcomes: how many requests ended how.
    happened: in how many schedules something came about: a fault, a way to run, a kind of request.
    """

    schedules: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    happened: Counter[str] = field(default_factory=Counter)

    def share(self, what: str) -> float:
        """The part of the schedules in which something came about."""
        return self.happened[what] / self.schedules


class Simulation:
    """One schedule, played. A failed check raises `AssertionError`; a request that never ends raises `Deadlock`."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._ledger = Ledger()
        self._in_flight: set[int] = set()
        # Requests that were not the only one in flight, from their first moment to their last.
        self._in_company: set[int] = set()

    async def play(self, played: Played) -> None:
        """Plays to the end and counts what it saw."""
        schedule = self._schedule
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        self._loop = loop
        clock = DeviceClock()
        self._executor = FaultyExecutor(
            clock,
            schedule.device,
            self._ledger,
            schedule.chance,
            ordered=schedule.ordered,
            longest_delay_s=schedule.longest_delay_s,
        )
        network = Network(schedule.chance, schedule.longest_delay_s, ordered=schedule.ordered)
        limits = BacklogLimits(schedule.backlog_rows, steps=1_000_000)
        self._executor.engine = SimulatedEngine(self._executor, clock, limits, BATCH_LIMITS, network, measured)
        self._engine = RecordingEngine(self._executor.engine, self._ledger)
        self._dispatcher = Dispatcher(self._engine, lambda _: None, loop.time)
        self._admission = Admission(schedule.admitted_rows, max_size=10**9, batch_rows=64)
        # A model that nobody asks for is only there to be unloaded.
        wanted = {request.model for request in schedule.requests}
        for key in (MODEL, OTHER) if OTHER in wanted or math.isfinite(schedule.unload_at) else (MODEL,):
            await self._engine.load(key, Path("unused"))
            self._admission.set_price(key, COSTS.row_step_s)

        for at, seconds in schedule.stalls:
            loop.call_later(at, self._stall, seconds)
        faults = [loop.create_task(self._fault(at, work)) for at, work in self._timed_faults()]
        clients = [loop.create_task(self._client(number, request)) for number, request in enumerate(schedule.requests)]
        for task, request in zip(clients, schedule.requests, strict=True):
            if math.isfinite(request.cancel_s):
                loop.call_later(request.start + request.cancel_s, task.cancel)
        ends = await asyncio.gather(*clients, return_exceptions=True)
        await self._check_nothing_is_left(faults)
        self._count(played, ends)

    def _timed_faults(self) -> list[tuple[float, str]]:
        faults = [(self._schedule.unload_at, "model unloaded"), (self._schedule.drain_at, "engine drained")]
        return [(at, work) for at, work in faults if math.isfinite(at)]

    async def _fault(self, at: float, work: str) -> None:
        await asyncio.sleep(at)
        try:
            await (self._engine.drain() if work == "engine drained" else self._engine.unload(OTHER))
        except ConveyorError:
            # The engine was gone before.
            assert work == "model unloaded"
        else:
            self._ledger.happened.add(work)

    def _stall(self, seconds: float) -> None:
        self._loop.stall(seconds)
        self._ledger.happened.add("front end held up")

    async def _client(self, number: int, request: Request) -> list[float]:
        """As the gateway does it, without text."""
        await asyncio.sleep(request.start)
        now = self._loop.time()
        deadline = now + min(request.patience_s, TIMEOUT_S)
        call = Call("sentiment", "simulation", "", deadline, request.priority)
        rows = request.content.rows
        size = sum(map(len, rows))
        alone = not self._in_flight
        admitted = False
        try:
            with self._admission.admit(request.model, len(rows), size, now, deadline, request.priority):
                admitted = True
                self._begin(number)
                self._admission.learn(request.model, size, size)
                results = await self._dispatcher.run(call, request.model, Rows.of(rows))
        except ConveyorError:
            if not admitted:
                fits = len(rows) <= self._schedule.admitted_rows
                assert not (alone and fits), "a request was refused although nothing else was there"
                self._in_company.add(number)
            raise
        finally:
            self._in_flight.discard(number)
        if request.pickup_s:
            await asyncio.sleep(request.pickup_s)
        return [result["sum"].item() for result in results]

    def _begin(self, number: int) -> None:
        if self._in_flight or not self._executor.engine.idle:
            self._in_company |= {number, *self._in_flight}
        self._in_flight.add(number)

    def _outcome(self, number: int, end: list[float] | BaseException) -> str:
        """How a request ended; fails unless the schedule gave reason for it."""
        schedule, request = self._schedule, self._schedule.requests[number]
        if isinstance(end, asyncio.CancelledError):
            assert math.isfinite(request.cancel_s)
            return "cancelled"
        if isinstance(end, list):
            assert not request.content.poisoned
            assert request.content.sums == end
            return "answered"
        assert isinstance(end, ConveyorError), repr(end)
        kind = type(end).__name__
        lost, drained = self._executor.lost, math.isfinite(schedule.drain_at)
        unloaded = request.model == OTHER and math.isfinite(schedule.unload_at)
        in_company = number in self._in_company
        num_rows = len(request.content.rows)
        match kind:
            case "DeadlineExceeded":
                reason = math.isfinite(request.patience_s) and (in_company or self._is_hurried(request))
            case "Internal":
                reason = request.content.poisoned or lost or schedule.device.failing > 0
            case "QueueFull":
                room = min(schedule.backlog_rows, schedule.admitted_rows)
                reason = room < MOST_ROWS and (in_company or num_rows > room)
            case "NotFound":
                reason = unloaded
            case _:
                reason = kind == "Unavailable" and (lost or drained or unloaded)
        assert reason, f"no reason for {end!r}"
        return kind

    def _is_hurried(self, request: Request) -> bool:
        """Whether a request may be late although nothing else is there."""
        schedule, device = self._schedule, self._schedule.device
        if (
            schedule.stalls
            or device.failing
            or device.alone
            or math.isfinite(min(device.room, device.held_room, device.slow[0]))
        ):
            return True
        compute_s = sum(COSTS.estimate_s(2, len(row)) for row in request.content.rows)
        return request.patience_s < SLACK * (compute_s + schedule.longest_delay_s)

    async def _check_nothing_is_left(self, faults: Sequence[asyncio.Task[None]]) -> None:
        ledger = self._ledger
        assert not ledger.violations, ledger.violations[0]
        unanswered = ledger.sent.keys() - ledger.replies.keys() - ledger.cancelled.keys()
        assert not unanswered, f"nobody waits for rows {unanswered}, and nobody has told the engine"
        # What was cancelled too late may still run.
        await asyncio.sleep(10.0)
        if faults:
            await asyncio.wait_for(asyncio.gather(*faults), 10.0)
        twice = [row_id for row_id, count in ledger.replies.items() if count > 1]
        assert not twice, f"rows {twice} were answered more than once"
        assert ledger.replies.keys() <= ledger.sent.keys()
        assert ledger.sent.keys() <= ledger.replies.keys() | ledger.cancelled.keys()
        try:
            queued = (await self._engine.stats()).queued_rows
        except ConveyorError:
            assert self._executor.lost or math.isfinite(self._schedule.drain_at)
        else:
            assert not any(queued.values()), f"{queued} wait for ever"
        # There is room for as many rows as at the start, so every request has given back what it held.
        with self._admission.admit(MODEL, self._schedule.admitted_rows, 10**9, self._loop.time(), math.inf):
            pass
        assert not self._dispatcher._posted
        assert not len(self._dispatcher._alarms)
        assert not self._dispatcher._outboxes
        assert not self._dispatcher._blocks

    def _count(self, played: Played, ends: Sequence[list[float] | BaseException]) -> None:
        outcomes = [self._outcome(number, end) for number, end in enumerate(ends)]
        happened = self._ledger.happened | {f"request {outcome}" for outcome in outcomes}
        requests = self._schedule.requests
        if any(math.isfinite(request.patience_s) for request in requests):
            happened.add("deadline")
        happened |= {f"priority {r.priority}" for r in requests if r.priority != NORMAL_PRIORITY}
        if len({request.model for request in requests}) > 1:
            happened.add("two models")
        if not self._schedule.ordered and self._schedule.longest_delay_s:
            happened.add("messages overtake each other")
        if len(requests) >= 5:
            happened.add("five requests")
        played.schedules += 1
        played.outcomes.update(outcomes)
        played.happened.update(happened)


def play(seed: int, played: Played | None = None) -> None:
    """Plays the schedule of a seed.

    Raises:
        AssertionError: Naming the seed, if anything is not as it must be.
    """
    try:
        run(Simulation(draw(seed)).play(played or Played()))
    except Exception as error:
        raise AssertionError(f"schedule of seed {seed}: {type(error).__name__}: {error}") from error


def play_many(seeds: range) -> Played:
    """Plays many schedules; the log of the faults they inject is dropped."""
    played = Played()
    before = structlog.get_config()["processors"]
    structlog.configure(processors=[_drop])
    try:
        for seed in seeds:
            play(seed, played)
    finally:
        structlog.configure(processors=before)
    return played


def _drop(*_: object) -> MutableMapping[str, object]:
    raise structlog.DropEvent


def _main() -> None:
    parser = argparse.ArgumentParser(description="Plays schedules and says how their requests ended.")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=10_000, help="how many seeds")
    arguments = parser.parse_args()
    started, started_cpu = time.perf_counter(), time.process_time()
    played = play_many(range(arguments.first, arguments.first + arguments.count))
    seconds, cpu = time.perf_counter() - started, time.process_time() - started_cpu
    count = arguments.count
    print(f"{count} schedules, {count / seconds:.0f} a second, {count / cpu:.0f} a second of CPU time")
    print(f"requests: {dict(played.outcomes.most_common())}")
    for what, schedules in played.happened.most_common():
        print(f"{schedules / count:7.1%}  {what}")


if __name__ == "__main__":
    _main()
