"""A simulated device and a seam that do what a schedule says goes wrong, and write down what they see."""

from __future__ import annotations

import asyncio
import copy
import random
import weakref
from collections import Counter
from collections.abc import Awaitable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from conveyor.domain import ModelKey
from conveyor.engine.batching.costs import CostTable, uniform_costs
from conveyor.engine.executors.port import Batch, BatchResult, OutOfDeviceMemory
from conveyor.engine.warmup import measure_costs
from conveyor.simulation.engine import EngineLost, SimulatedEngine
from conveyor.simulation.executor import DeviceClock, SimulatedExecutor, SimulatedScan
from conveyor.wire.messages import FailureBlock, Inputs, ResultBlock, RowBlock
from conveyor.wire.port import EnginePort, EngineStats, Reply, ReplySink
from support.executors import FAILS, NOT_FINITE

__all__ = ["COSTS", "DeviceFaults", "FaultyExecutor", "Ledger", "RecordingEngine", "measured"]

COSTS = uniform_costs(row_step_s=1e-6, call_s=1e-4)
SLOWNESS = 5.0


def measured(*_: object) -> CostTable:
    """What `measure_costs` finds for `COSTS`. Found once; each engine gets its own to correct."""
    return copy.copy(_MEASURED)


def _measure() -> CostTable:
    clock, key = DeviceClock(), ModelKey("any", "1")
    executor = SimulatedExecutor(clock, COSTS, random.Random(0))
    executor.load(key, Path("unused"))
    return measure_costs(executor, key, clock)


_MEASURED = _measure()


@dataclass(frozen=True)
class DeviceFaults:
    """What goes wrong on the device.

    lost_at: the execution in which the engine dies, None if it lives.
    failing: the part of executions that fail for no reason.
    room: rows × steps of an execution beyond which memory runs out.
    held_room: steps of all rows under way in chunks beyond which no other may begin; a row alone always fits.
    alone: whether a row in chunks finds room to go on only while no other is under way.
    in_rows: whether any row holds `FAILS` or `NOT_FINITE`.
    slow: from when until when executions take `SLOWNESS` times as long; seconds from the start.
    """

    lost_at: int | None
    failing: float
    room: float
    held_room: float
    alone: bool
    in_rows: bool
    slow: tuple[float, float]


@dataclass
class Ledger:
    """What crossed the wire: rows by id as they were sent, when they were cancelled, and what came back; and which
    faults came about."""

    numbers: dict[int, int] = field(default_factory=dict)
    deadlines: dict[int, float] = field(default_factory=dict)
    sent: dict[int, float] = field(default_factory=dict)
    cancelled: dict[int, float] = field(default_factory=dict)
    replies: Counter[int] = field(default_factory=Counter)
    # What an executor can't raise, since the engine answers what executors raise.
    violations: list[str] = field(default_factory=list)
    happened: set[str] = field(default_factory=set)


class RecordingEngine:
    """An engine port that passes everything on and writes it down."""

    def __init__(self, engine: EnginePort, ledger: Ledger) -> None:
        self._engine = engine
        self._ledger = ledger

    def connect(self, sink: ReplySink) -> None:
        """Puts itself between."""
        self._loop = asyncio.get_running_loop()

        def record(reply: Reply) -> None:
            ids = reply.ids if isinstance(reply, FailureBlock) else reply.ids.tolist()
            self._ledger.replies.update(ids)
            if isinstance(reply, ResultBlock):
                assert min(reply.report.queue_s.tolist(), default=0.0) >= 0.0
                assert reply.report.padding_steps >= 0
            sink(reply)

        self._engine.connect(record)

    def submit(self, block: RowBlock) -> None:
        """Rows on their way to the engine."""
        now = self._loop.time()
        end = 0
        columns = (block.ids, block.lengths, block.deadlines)
        for row_id, length, deadline in zip(*columns, strict=True):
            assert row_id not in self._ledger.sent
            self._ledger.sent[row_id] = now
            if length:
                self._ledger.numbers[block.inputs.item(end)] = row_id
            self._ledger.deadlines[row_id] = deadline
            end += length
        self._engine.submit(block)

    def cancel(self, ids: Collection[int]) -> None:
        """Rows nobody waits for."""
        now = self._loop.time()
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


class FaultyScan(SimulatedScan):
    """A row in chunks: who it is, and what is wrong with it."""

    def __init__(self, inputs: Inputs) -> None:
        super().__init__(inputs)
        self.number = inputs.item(0)
        self.lowest = inputs.min()


class FaultyExecutor(SimulatedExecutor):
    """A device that does what the schedule says, and sees whether it computes what nobody wants any more.

    Args:
        chance: Where failures are drawn from.
        ordered, longest_delay_s: Of the network that cancellations come over.
    """

    def __init__(
        self,
        clock: DeviceClock,
        faults: DeviceFaults,
        ledger: Ledger,
        chance: random.Random,
        *,
        ordered: bool,
        longest_delay_s: float,
    ) -> None:
        super().__init__(clock, COSTS, chance)
        self._device_clock = clock
        self._faults = faults
        self._ledger = ledger
        self._ordered = ordered
        self._longest_delay_s = longest_delay_s
        self._executions = 0
        # The engine has to let go of what it has given up: memory is held for as long as a scan is.
        self._held: weakref.WeakSet[FaultyScan] = weakref.WeakSet()
        self.engine: SimulatedEngine

    @property
    def lost(self) -> bool:
        """Whether the engine has died."""
        return self._faults.lost_at is not None and self._executions >= self._faults.lost_at

    def run(self, key: ModelKey, batch: Batch) -> BatchResult:
        """As scheduled."""
        self._fault(batch.inputs.size, "out of memory for a batch")
        numbers = batch.inputs[:, 0, 0].tolist()
        for number in numbers:
            self._check_wanted(number)
        lowest = batch.inputs.min() if self._faults.in_rows else 0
        if lowest < 0 and (batch.inputs == FAILS).any():
            self._poisoned()
        result = super().run(key, batch)
        if lowest < 0:
            self._ledger.happened.add("result not finite")
            result.arrays["sum"][(batch.inputs == NOT_FINITE).any(axis=(1, 2))] = np.nan
        return result

    def begin(self, key: ModelKey, inputs: Inputs) -> FaultyScan:
        """As scheduled."""
        self._fault()
        assert key in self._loaded
        held = sum(len(scan.inputs) for scan in self._held)
        if held and held + len(inputs) > self._faults.held_room:
            self._ledger.happened.add("out of memory for another long row")
            raise OutOfDeviceMemory("no room beside the others")
        scan = FaultyScan(inputs)
        self._check_wanted(scan.number)
        self._held.add(scan)
        return scan

    def advance(self, key: ModelKey, scans: Sequence[SimulatedScan], phase: int, steps: int, rows: int) -> None:
        """As scheduled."""
        self._fault(rows * steps, "out of memory for a chunk")
        self._check_alone()
        self._ledger.happened.add("long row" if len(scans) == 1 else "long rows together")
        for scan in scans:
            assert isinstance(scan, FaultyScan)
            self._check_wanted(scan.number)
            if scan.lowest < 0 and (scan.inputs == FAILS).any():
                self._poisoned()
        super().advance(key, scans, phase, steps, rows)

    def finish(self, key: ModelKey, scan: SimulatedScan) -> BatchResult:
        """As scheduled."""
        self._fault()
        self._check_alone()
        result = super().finish(key, scan)
        result.arrays["sum"][(scan.inputs == NOT_FINITE).any()] = np.nan
        return result

    def _fault(self, size: int = 0, what: str = "") -> None:
        self._executions += 1
        if self.lost:
            self._ledger.happened.add("engine lost")
            raise EngineLost
        if self._faults.failing and self._chance.random() < self._faults.failing:
            self._ledger.happened.add("execution failed")
            raise RuntimeError("failed for no reason")
        if size > self._faults.room:
            self._ledger.happened.add(what)
            raise OutOfDeviceMemory("no room")

    def _check_alone(self) -> None:
        if self._faults.alone and len(self._held) > 1:
            self._ledger.happened.add("out of memory beside another long row")
            raise OutOfDeviceMemory("no room while others are under way")

    def _poisoned(self) -> None:
        self._ledger.happened.add("row at fault")
        raise RuntimeError("boom")

    def _spend(self, seconds: float) -> None:
        first, last = self._faults.slow
        if first <= self._device_clock.now < last:
            self._ledger.happened.add("slow device")
            seconds *= SLOWNESS
        super()._spend(seconds)

    def _check_wanted(self, number: int) -> None:
        """A row that was cancelled or late when the engine last looked is not computed."""
        row_id = self._ledger.numbers.get(number)
        if row_id is None:
            return
        now = self.engine.step_started
        if now >= self._ledger.deadlines[row_id]:
            self._ledger.violations.append(f"row {row_id} ran although its deadline had passed")
        cancelled = self._ledger.cancelled.get(row_id)
        if cancelled is None:
            return
        # A cancellation may overtake the row it is for.
        overtaken = not self._ordered and cancelled < self._ledger.sent[row_id] + self._longest_delay_s
        if now > cancelled + self._longest_delay_s and not overtaken:
            self._ledger.violations.append(f"row {row_id} ran although it was cancelled")
