"""An executor whose answers can be told from the inputs, that takes time on a fake clock, and that fails on demand."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from conveyor.domain import ModelKey
from conveyor.engine.executors.port import Batch, BatchResult, OutOfDeviceMemory
from conveyor.wire.messages import Inputs
from conveyor.wire.port import PlanReport

__all__ = ["FAILS", "NOT_FINITE", "FakeClock", "SummingExecutor", "SummingScan"]

FAILS, NOT_FINITE = -1, -2


class FakeClock:
    """A clock that moves only when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """The time now."""
        return self.now


class SummingScan:
    """A long row that has two phases to go through, in any order, before it is summed."""

    num_phases = 2

    def __init__(self, values: np.ndarray) -> None:
        self.values = values
        self.positions = [0, 0]

    @property
    def phases(self) -> list[int]:
        """The phases that are not through."""
        return [phase for phase in (0, 1) if self.remaining_steps(phase)]

    def remaining_steps(self, phase: int) -> int:
        """Steps left in a phase."""
        return len(self.values) - self.positions[phase]

    def advance(self, phase: int, steps: int) -> np.ndarray:
        """Goes on; returns the values it went over."""
        assert phase in self.phases
        first = self.positions[phase]
        self.positions[phase] = min(first + steps, len(self.values))
        return self.values[first : self.positions[phase]]


class SummingExecutor:
    """Answers each row with the sum of its inputs; a row that holds FAILS or NOT_FINITE does that instead.

    Args:
        stepwise: Answer every step with the sum up to it.
        clock: Moves on by what an execution costs: `call_s` for each call and `row_step_s` for each step of each row.
        room: Rows × steps of an execution beyond which memory runs out.
        ragged: Whether it says so.
        held_room: Steps of all rows under way in chunks beyond which memory runs out.
    """

    device = "fake"

    def __init__(
        self,
        *,
        stepwise: bool = False,
        clock: FakeClock | None = None,
        call_s: float = 1e-4,
        row_step_s: float = 1e-6,
        room: int = 10**9,
        held_room: int = 10**9,
        ragged: bool = False,
    ) -> None:
        self.stepwise = stepwise
        self.clock = clock
        self.call_s = call_s
        self.row_step_s = row_step_s
        self.room = room
        self.held_room = held_room
        self.ragged = ragged
        # What the engine has let go of is free at once.
        self.held: weakref.WeakSet[SummingScan] = weakref.WeakSet()
        self.batches: list[Batch] = []
        self.chunks: list[tuple[int, int]] = []
        self.loaded: set[ModelKey] = set()
        self.before_run: Callable[[], None] = lambda: None
        self.before_finish: Callable[[], None] = lambda: None

    def load(self, key: ModelKey, directory: Path) -> None:
        """Remembers the model."""
        self.loaded.add(key)

    def unload(self, key: ModelKey) -> None:
        """Forgets the model."""
        self.loaded.discard(key)

    def memory_bytes(self) -> Mapping[str, int]:
        """A made-up size."""
        return {"weights": 100}

    def plan(self, key: ModelKey) -> PlanReport:
        """A made-up one."""
        assert key in self.loaded
        return PlanReport("summing", self.device, "float32", "made up")

    def is_ragged(self, key: ModelKey) -> bool:
        """As it was told."""
        return self.ragged

    def blank(self, key: ModelKey, rows: int, steps: int) -> Inputs:
        """Zeros."""
        assert key in self.loaded
        return np.zeros((rows, steps, 1), dtype=np.int32)

    def run(self, key: ModelKey, batch: Batch) -> BatchResult:
        """Sums over steps, or running sums if stepwise."""
        assert key in self.loaded
        assert batch.inputs.shape[:2] == (batch.stairs[0].rows, sum(stair.steps for stair in batch.stairs))
        assert all(np.diff(batch.lengths) <= 0)
        self.before_run()
        self.batches.append(batch)
        if batch.inputs.size > self.room:
            raise OutOfDeviceMemory("no room")
        for stair in batch.stairs:
            self._spend(stair.rows, stair.steps)
        values = self._values(batch.inputs[..., 0])
        sums = np.cumsum(values, axis=1)
        return BatchResult({"sum": sums if self.stepwise else sums[:, -1]}, self.stepwise)

    def begin(self, key: ModelKey, inputs: Inputs) -> SummingScan:
        """Starts a long row."""
        assert key in self.loaded
        if sum(len(scan.values) for scan in self.held) + len(inputs) > self.held_room:
            raise OutOfDeviceMemory("no room for another row")
        scan = SummingScan(inputs[:, 0])
        self.held.add(scan)
        return scan

    def advance(self, key: ModelKey, scans: Sequence[SummingScan], phase: int, steps: int, rows: int) -> None:
        """Goes on with long rows; one that fails stops them all where they are."""
        assert rows >= len(scans)
        self.before_run()
        if rows * steps > self.room:
            raise OutOfDeviceMemory("no room")
        self.chunks.append((rows, steps))
        for scan in scans:
            self._values(scan.values[scan.positions[phase] : scan.positions[phase] + steps])
        self._spend(rows, steps / SummingScan.num_phases)
        for scan in scans:
            scan.advance(phase, steps)

    def finish(self, key: ModelKey, scan: SummingScan) -> BatchResult:
        """The sum of a long row."""
        assert not scan.phases
        self.before_finish()
        sums = np.cumsum(self._values(scan.values))[None]
        return BatchResult({"sum": sums if self.stepwise else sums[:, -1]}, self.stepwise)

    def _spend(self, rows: int, steps: float) -> None:
        if self.clock is not None:
            self.clock.now += self.call_s + self.row_step_s * rows * steps

    @staticmethod
    def _values(inputs: np.ndarray) -> np.ndarray:
        values = inputs.astype(np.float32)
        if (values == FAILS).any():
            raise RuntimeError("boom")
        values[values == NOT_FINITE] = np.nan
        return values
