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
from collections.abc import Awaitable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import structlog

from conveyor.domain import ModelKey
from conveyor.engine.batching.backlog import BacklogLimits
from conveyor.engine.batching.costs import uniform_costs
from conveyor.engine.batching.policy import BatchLimits
from conveyor.engine.executors.port import Batch, BatchResult, OutOfDeviceMemory
from conveyor.errors import ConveyorError
from conveyor.gateway.admission import Admission
from conveyor.gateway.call import Call
from conveyor.gateway.dispatcher import Dispatcher
from conveyor.simulation.engine import EngineLost, SimulatedEngine
from conveyor.simulation.executor import DeviceClock, SimulatedExecutor, SimulatedScan
from conveyor.simulation.network import Network
from conveyor.simulation.virtual_time import VirtualTimeLoop, run
from conveyor.wire.messages import PRIORITIES, FailureBlock, Inputs, Reply, ResultBlock, RowBlock
from conveyor.wire.port import EnginePort, EngineStats, ReplySink
from support.executors import FAILS, NOT_FINITE

__all__ = ["Schedule", "draw", "play", "play_many"]

MODEL, OTHER = ModelKey("m", "1"), ModelKey("other", "1")

# Rows over 256 steps are run in chunks of this engine.
BATCH_LIMITS = BatchLimits(rows=8, padded_steps=2000, slice_s=0.0006, lane_rows=3)
# Rows × steps of any row that is run whole, filler row included.
ROOM_FOR_ONE = 2 * 512
MOST_ROWS = 1000
COSTS = uniform_costs(row_step_s=1e-6, call_s=1e-4)
TIMEOUT_S = 300.0
# No row's sum comes near the next row's number.
ROW_NUMBER = 10_000


@dataclass(frozen=True)
class Request:
    """What one client does.

    rows: the first step of each that has any is its number times `ROW_NUMBER`.
    patience_s: from the start to its deadline; infinite if it sets none.
    cancel_s: from the start to when it leaves; infinite if it stays.
    pickup_s: how long it leaves the answer lying.
    """

    start: float
    model: ModelKey
    rows: Sequence[np.ndarray]
    priority: int
    patience_s: float
    cancel_s: float
    pickup_s: float

    @property
    def poisoned(self) -> bool:
        """Whether a row makes the model fail."""
        return any((row < 0).any() for row in self.rows)


@dataclass(frozen=True)
class Schedule:
    """What happens, all of it drawn from the seed.

    lost_at: the execution in which the engine dies, None if it lives.
    failing: the part of executions that fail for no reason.
    room: rows × steps beyond which memory runs out; enough for any row alone.
    stalls: when the front end is held up, and for how long.
    unload_at, drain_at: when a model is unloaded, and when the engine is drained; infinite if never.
    """

    seed: int
    requests: Sequence[Request]
    longest_delay_s: float
    ordered: bool
    backlog_rows: int
    admitted_rows: int
    lost_at: int | None
    failing: float
    room: int
    stalls: Sequence[tuple[float, float]]
    unload_at: float
    drain_at: float


def draw(seed: int) -> Schedule:
    """The schedule of a seed."""
    chance = random.Random(seed)

    def sometimes(probability: float, value: float) -> float:
        return value if chance.random() < probability else math.inf

    numbers = iter(range(1, MOST_ROWS))

    def row() -> np.ndarray:
        kind = chance.random()
        shortest, longest = (0, 12) if kind < 0.6 else (10, 60) if kind < 0.9 else (257, 700)
        length = chance.randint(shortest, longest)
        values = np.full((length, 1), chance.randint(1, 9), dtype=np.int32)
        values[:1] = next(numbers) * ROW_NUMBER
        if length > 1 and chance.random() < 0.03:
            values[chance.randrange(1, length)] = chance.choice((FAILS, NOT_FINITE))
        return values

    span_s = chance.choice((0.0, 0.002, 0.01))
    requests = [
        Request(
            start=chance.random() * span_s,
            model=OTHER if chance.random() < 0.2 else MODEL,
            rows=[row() for _ in range(20 if chance.random() < 0.03 else chance.randint(1, 3))],
            priority=chance.choice(PRIORITIES),
            patience_s=sometimes(0.3, chance.random() * chance.choice((0.001, 0.005))),
            cancel_s=sometimes(0.2, chance.random() * 0.003),
            pickup_s=chance.choice((0.0, 0.0, 0.005)),
        )
        for _ in range(chance.randint(1, 10))
    ]
    return Schedule(
        seed=seed,
        requests=requests,
        longest_delay_s=chance.choice((0.0, 1e-4, 2e-3)),
        ordered=chance.random() < 0.5,
        backlog_rows=4 if chance.random() < 0.15 else MOST_ROWS,
        admitted_rows=5 if chance.random() < 0.15 else MOST_ROWS,
        lost_at=chance.randint(1, 15) if chance.random() < 0.2 else None,
        failing=0.2 if chance.random() < 0.15 else 0.0,
        room=ROOM_FOR_ONE if chance.random() < 0.25 else 10**9,
        stalls=[(chance.random() * 0.01, chance.random() * 0.005) for _ in range(chance.choice((0, 0, 0, 2)))],
        unload_at=sometimes(0.1, chance.random() * 0.01),
        drain_at=sometimes(0.1, chance.random() * 0.01),
    )


@dataclass
class Ledger:
    """What crossed the wire: rows by id as they were sent, when they were cancelled, and what came back."""

    numbers: dict[int, int] = field(default_factory=dict)
    deadlines: dict[int, float] = field(default_factory=dict)
    sent: dict[int, float] = field(default_factory=dict)
    cancelled: dict[int, float] = field(default_factory=dict)
    replies: Counter[int] = field(default_factory=Counter)
    # What an executor can't raise, since the engine answers what executors raise.
    violations: list[str] = field(default_factory=list)


class RecordingEngine:
    """An engine port that passes everything on and writes it down."""

    def __init__(self, engine: EnginePort, ledger: Ledger) -> None:
        self._engine = engine
        self._ledger = ledger

    def connect(self, sink: ReplySink) -> None:
        """Puts itself between."""

        def record(reply: Reply) -> None:
            ids = reply.ids if isinstance(reply, FailureBlock) else reply.ids.tolist()
            self._ledger.replies.update(ids)
            if isinstance(reply, ResultBlock):
                assert reply.report.queue_s.min(initial=0.0) >= 0.0
                assert reply.report.padding_steps >= 0
            sink(reply)

        self._engine.connect(record)

    def submit(self, block: RowBlock) -> None:
        """Rows on their way to the engine."""
        now = asyncio.get_running_loop().time()
        end = 0
        for row_id, length, deadline in zip(block.ids.tolist(), block.lengths.tolist(), block.deadlines, strict=True):
            assert row_id not in self._ledger.sent
            self._ledger.sent[row_id] = now
            if length:
                number = int(block.inputs[end, 0])
                self._ledger.numbers[number] = row_id
            self._ledger.deadlines[row_id] = float(deadline)
            end += length
        self._engine.submit(block)

    def cancel(self, ids: Collection[int]) -> None:
        """Rows nobody waits for."""
        now = asyncio.get_running_loop().time()
        self._ledger.cancelled.update(dict.fromkeys(ids, now))
        self._engine.cancel(ids)

    def load(self, key: ModelKey, directory: Path) -> Awaitable[None]:
        """Passed on."""
        return self._engine.load(key, directory)

    def unload(self, key: ModelKey) -> Awaitable[None]:
        """Passed on."""
        return self._engine.unload(key)

    def stats(self) -> Awaitable[EngineStats]:
        """Passed on."""
        return self._engine.stats()

    def drain(self) -> Awaitable[None]:
        """Passed on."""
        return self._engine.drain()


class FaultyExecutor(SimulatedExecutor):
    """A device that does what the schedule says, and refuses to compute what nobody wants any more."""

    def __init__(self, clock: DeviceClock, schedule: Schedule, ledger: Ledger) -> None:
        super().__init__(clock, COSTS, random.Random(schedule.seed))
        self._schedule = schedule
        self._ledger = ledger
        self._executions = 0
        self.engine: SimulatedEngine
        self.armed = False

    @property
    def lost(self) -> bool:
        """Whether the engine has died."""
        return self._schedule.lost_at is not None and self._executions >= self._schedule.lost_at

    def run(self, key: ModelKey, batch: Batch) -> BatchResult:
        """As scheduled."""
        if not self.armed:
            return super().run(key, batch)
        self._fault()
        for number in batch.inputs[:, 0, 0].tolist():
            self._check_wanted(number)
        if batch.inputs.size > self._schedule.room:
            raise OutOfDeviceMemory("no room")
        _fail_if_poisoned(batch.inputs)
        result = super().run(key, batch)
        result.arrays["sum"][(batch.inputs == NOT_FINITE).any(axis=(1, 2))] = np.nan
        return result

    def begin(self, key: ModelKey, inputs: Inputs) -> SimulatedScan:
        """As scheduled."""
        self._fault()
        self._check_wanted(int(inputs[0, 0]))
        return super().begin(key, inputs)

    def advance(self, key: ModelKey, scans: Sequence[SimulatedScan], phase: int, steps: int, rows: int) -> None:
        """As scheduled."""
        self._fault()
        for scan in scans:
            self._check_wanted(int(scan.inputs[0, 0]))
            _fail_if_poisoned(scan.inputs)
        super().advance(key, scans, phase, steps, rows)

    def finish(self, key: ModelKey, scan: SimulatedScan) -> BatchResult:
        """As scheduled."""
        self._fault()
        result = super().finish(key, scan)
        result.arrays["sum"][(scan.inputs == NOT_FINITE).any()] = np.nan
        return result

    def _fault(self) -> None:
        self._executions += 1
        if self.lost:
            raise EngineLost
        if self._chance.random() < self._schedule.failing:
            raise RuntimeError("failed for no reason")

    def _check_wanted(self, number: int) -> None:
        """A row that was cancelled or late when the engine last looked is not computed."""
        row_id = self._ledger.numbers.get(number)
        if row_id is None:
            return
        now = self.engine.step_started
        if now >= self._ledger.deadlines[row_id]:
            self._ledger.violations.append(f"row {row_id} ran although its deadline had passed")
        delay_s = self._schedule.longest_delay_s
        cancelled = self._ledger.cancelled.get(row_id, math.inf)
        # A cancellation may overtake the row it is for.
        overtaken = not self._schedule.ordered and cancelled < self._ledger.sent[row_id] + delay_s
        if now > cancelled + delay_s and not overtaken:
            self._ledger.violations.append(f"row {row_id} ran although it was cancelled")


def _fail_if_poisoned(inputs: Inputs) -> None:
    if (inputs == FAILS).any():
        raise RuntimeError("boom")


class Simulation:
    """One schedule, played. A failed check raises `AssertionError`; a request that never ends raises `Deadlock`."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._ledger = Ledger()
        self._outcomes: Counter[str] = Counter()

    async def play(self) -> Counter[str]:
        """Plays to the end; returns how many requests ended how."""
        schedule = self._schedule
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        self._loop = loop
        clock = DeviceClock()
        self._executor = FaultyExecutor(clock, schedule, self._ledger)
        network = Network(random.Random(schedule.seed + 1), schedule.longest_delay_s, ordered=schedule.ordered)
        limits = BacklogLimits(schedule.backlog_rows, steps=1_000_000)
        self._executor.engine = SimulatedEngine(self._executor, clock, limits, BATCH_LIMITS, network)
        self._engine = RecordingEngine(self._executor.engine, self._ledger)
        self._dispatcher = Dispatcher(self._engine, lambda _: None, loop.time)
        self._admission = Admission(schedule.admitted_rows, max_size=10**9, batch_rows=64)
        for key in (MODEL, OTHER):
            await self._engine.load(key, Path("unused"))
        for key, costs in (await self._engine.stats()).costs.items():
            self._admission.set_price(key, costs.row_step_s)
        self._executor.armed = True

        self._started = loop.time()
        for at, seconds in schedule.stalls:
            loop.call_later(at, loop.stall, seconds)
        self._faults = [loop.create_task(self._fault(at, work)) for at, work in self._timed_faults()]
        clients = [loop.create_task(self._client(request)) for request in schedule.requests]
        for task, request in zip(clients, schedule.requests, strict=True):
            if math.isfinite(request.cancel_s):
                loop.call_later(request.start + request.cancel_s, task.cancel)
        ends = await asyncio.gather(*clients, return_exceptions=True)
        for request, end in zip(schedule.requests, ends, strict=True):
            self._outcomes[self._outcome(request, end)] += 1
        await self._check_nothing_is_left()
        return self._outcomes

    def _timed_faults(self) -> list[tuple[float, str]]:
        faults = [(self._schedule.unload_at, "unload"), (self._schedule.drain_at, "drain")]
        return [(at, work) for at, work in faults if math.isfinite(at)]

    async def _fault(self, at: float, work: str) -> None:
        await asyncio.sleep(at)
        try:
            await (self._engine.drain() if work == "drain" else self._engine.unload(OTHER))
        except ConveyorError:
            # The engine was gone before.
            assert work == "unload"

    async def _client(self, request: Request) -> list[float]:
        """As the gateway does it, without text."""
        await asyncio.sleep(request.start)
        now = self._loop.time()
        deadline = now + min(request.patience_s, TIMEOUT_S)
        call = Call("sentiment", "simulation", "", deadline, request.priority)
        size = sum(map(len, request.rows))
        with self._admission.admit(request.model, len(request.rows), size, now, deadline):
            self._admission.learn(request.model, size, size)
            results = await self._dispatcher.run(call, request.model, request.rows)
        await asyncio.sleep(request.pickup_s)
        return [float(result["sum"][0]) for result in results]

    def _outcome(self, request: Request, end: list[float] | BaseException) -> str:
        """How a request ended; fails unless the schedule gave reason for it."""
        schedule = self._schedule
        if isinstance(end, asyncio.CancelledError):
            assert math.isfinite(request.cancel_s)
            return "cancelled"
        if isinstance(end, list):
            assert not request.poisoned
            assert [float(row.sum()) for row in request.rows] == end
            return "answered"
        assert isinstance(end, ConveyorError), repr(end)
        kind = type(end).__name__
        reasons = {
            "DeadlineExceeded": math.isfinite(request.patience_s),
            "Internal": request.poisoned or self._executor.lost or schedule.failing > 0,
            "QueueFull": min(schedule.backlog_rows, schedule.admitted_rows) < MOST_ROWS,
            "NotFound": request.model == OTHER and math.isfinite(schedule.unload_at),
            "Unavailable": self._executor.lost
            or math.isfinite(schedule.drain_at)
            or (request.model == OTHER and math.isfinite(schedule.unload_at)),
        }
        assert reasons[kind], f"no reason for {end!r}"
        return kind

    async def _check_nothing_is_left(self) -> None:
        ledger = self._ledger
        assert not ledger.violations, ledger.violations[0]
        unanswered = ledger.sent.keys() - ledger.replies.keys() - ledger.cancelled.keys()
        assert not unanswered, f"nobody waits for rows {unanswered}, and nobody has told the engine"
        # What was cancelled too late may still run.
        await asyncio.sleep(10.0)
        await asyncio.wait_for(asyncio.gather(*self._faults), 10.0)
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
        assert not self._dispatcher._waiters
        assert not self._dispatcher._outboxes


def play(seed: int) -> Counter[str]:
    """Plays the schedule of a seed.

    Raises:
        AssertionError: Naming the seed, if anything is not as it must be.
    """
    try:
        return run(Simulation(draw(seed)).play())
    except Exception as error:
        raise AssertionError(f"schedule of seed {seed}: {type(error).__name__}: {error}") from error


def play_many(seeds: range) -> Counter[str]:
    """Plays many schedules; the log of the faults they inject is kept from the output."""
    outcomes: Counter[str] = Counter()
    with structlog.testing.capture_logs():
        for seed in seeds:
            outcomes += play(seed)
    return outcomes


def _main() -> None:
    parser = argparse.ArgumentParser(description="Plays schedules and says how their requests ended.")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=10_000, help="how many seeds")
    arguments = parser.parse_args()
    started = time.perf_counter()
    outcomes = play_many(range(arguments.first, arguments.first + arguments.count))
    seconds = time.perf_counter() - started
    print(f"{arguments.count} schedules, {arguments.count / seconds:.0f} a second; {dict(outcomes.most_common())}")


if __name__ == "__main__":
    _main()
