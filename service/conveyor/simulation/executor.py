"""A device that is a clock: an execution takes the time that a cost table says, and answers can be told by heart."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from conveyor.domain import ModelKey
from conveyor.engine.batching.costs import CostTable
from conveyor.engine.batching.policy import price_s
from conveyor.engine.executors.port import Batch, BatchResult, SessionStates
from conveyor.errors import InvalidArgument
from conveyor.wire.messages import Inputs
from conveyor.wire.port import PlanReport

__all__ = ["DeviceClock", "SimulatedExecutor", "SimulatedScan"]


@dataclass(slots=True)
class DeviceClock:
    """Monotonic seconds of the engine's thread; executions move it on."""

    now: float = 0.0

    def __call__(self) -> float:
        """The time now."""
        return self.now


class SimulatedScan:
    """A long row that has two phases to go through, in any order: one layer in both directions."""

    num_phases = 2

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs
        self._done = [0, 0]

    @property
    def phases(self) -> Sequence[int]:
        """The phases that are not through."""
        return [phase for phase in (0, 1) if self.remaining_steps(phase)]

    def remaining_steps(self, phase: int) -> int:
        """Steps left in a phase."""
        return len(self.inputs) - self._done[phase]

    def advance(self, phase: int, steps: int) -> None:
        """Goes on in a phase."""
        self._done[phase] += min(steps, self.remaining_steps(phase))


class SimulatedExecutor:
    """Answers a row with the sum of its inputs.

    Args:
        clock: Moved on by what each execution takes.
        costs: What executions take.
        noise: Deviation of the logarithm of an execution's time; drawn from `chance`.
    """

    device = "simulated"

    def __init__(self, clock: DeviceClock, costs: CostTable, chance: random.Random, noise: float = 0.0) -> None:
        self._clock = clock
        self._costs = costs
        self._chance = chance
        self._noise = noise
        self._loaded: set[ModelKey] = set()

    def load(self, key: ModelKey, directory: Path) -> None:  # noqa: ARG002 (the port's)
        """Takes every model."""
        self._loaded.add(key)

    def unload(self, key: ModelKey) -> None:
        """Forgets a model."""
        self._loaded.remove(key)

    def memory_bytes(self) -> Mapping[str, int]:
        """None is used."""
        return {}

    def plan(self, key: ModelKey) -> PlanReport:
        """Nothing is executed."""
        assert key in self._loaded
        return PlanReport("simulated", self.device, "none", "simulated")

    def is_ragged(self, key: ModelKey) -> bool:
        """Rows are padded."""
        assert key in self._loaded
        return False

    def blank(self, key: ModelKey, rows: int, steps: int) -> Inputs:
        """Zeros of one column."""
        assert key in self._loaded
        return np.zeros((rows, steps, 1), dtype=np.int32)

    def run(self, key: ModelKey, batch: Batch) -> BatchResult:
        """Sums each row and takes its time."""
        assert key in self._loaded
        self._spend(price_s(batch.stairs, len(batch.lengths), self._costs))
        return BatchResult({"sum": batch.inputs.sum(axis=(1, 2), dtype=np.float32)}, stepwise=False)

    def begin(self, key: ModelKey, inputs: Inputs) -> SimulatedScan:
        """Starts a long row."""
        assert key in self._loaded
        return SimulatedScan(inputs)

    def advance(self, key: ModelKey, scans: Sequence[SimulatedScan], phase: int, steps: int, rows: int) -> None:
        """Goes on with long rows."""
        assert key in self._loaded
        self._spend((self._costs.cut_s + self._costs.step_s(rows) * steps) / scans[0].num_phases)
        for scan in scans:
            scan.advance(phase, steps)

    def finish(self, key: ModelKey, scan: SimulatedScan) -> BatchResult:
        """The sum of a long row."""
        assert key in self._loaded
        assert not scan.phases
        return BatchResult({"sum": scan.inputs.sum(keepdims=True, dtype=np.float32)[0]}, stepwise=False)

    def session_states(self, key: ModelKey) -> SessionStates:
        """There are no sessions here."""
        raise InvalidArgument(f"model {key.name!r} is simulated, and takes no sessions")

    def _spend(self, seconds: float) -> None:
        self._clock.now += seconds * (self._chance.lognormvariate(0.0, self._noise) if self._noise else 1.0)
