"""The executor port: what the engine's thread asks of whatever runs batches on a device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from conveyor.domain import ModelKey
from conveyor.engine.batching.lane import Scan
from conveyor.engine.batching.shapes import Stair
from conveyor.spec import SeriesSpec
from conveyor.wire.messages import Inputs
from conveyor.wire.port import PlanReport

__all__ = ["Batch", "BatchResult", "Executor", "OutOfDeviceMemory", "SessionStates", "StepOutcome"]


class OutOfDeviceMemory(Exception):
    """The device has no room for this execution; a smaller one may fit."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Rows padded to one length.

    inputs: int32 or float32 [rows, steps, width]; what lies past a row's length is zero and must not matter.
    lengths: int32 [rows], descending, at most `steps` each.
    stairs: the calls to make; their steps sum to `steps`, and the first has all rows.
    """

    inputs: Inputs
    lengths: npt.NDArray[np.int32]
    stairs: Sequence[Stair]


@dataclass(frozen=True, slots=True, eq=False)
class BatchResult:
    """What came out, by name: [rows, steps, …] if `stepwise` (valid up to each row's length), else [rows, …]."""

    arrays: Mapping[str, npt.NDArray[np.generic]]
    stepwise: bool


@dataclass(frozen=True, slots=True, eq=False)
class StepOutcome:
    """What steps of sessions gave.

    finite: bool [rows], whether all of a row's outcome is; if not, its state stays as it was.
    forecasts: float32 [wanted and finite, horizon, targets, 1 + quantiles], as `predict` of a forecaster gives them.
    """

    finite: npt.NDArray[np.bool_]
    forecasts: npt.NDArray[np.float32]


class SessionStates(Protocol):
    """The recurrent states of a model's sessions, in slabs on the device; always float32.

    A slot has one state, and `width` numbers are all of it. Slots are numbered on from slab to slab, and a slab stays
    where it is. Which are in use is the caller's business.
    """

    @property
    def series(self) -> SeriesSpec:
        """What the observations of a session are."""

    @property
    def forecast_shape(self) -> tuple[int, ...]:
        """Of one forecast: horizon, targets, 1 + quantiles."""

    @property
    def width(self) -> int:
        """Numbers of a state."""

    def add_slab(self, slots: int) -> None:
        """Adds slots behind the last, whose states are anything. All slabs but the last have the same size.

        Raises:
            OutOfDeviceMemory: There is no room for it.
        """

    def step(
        self, slots: npt.NDArray[np.int32], inputs: npt.NDArray[np.float32], wanted: npt.NDArray[np.bool_]
    ) -> StepOutcome:
        """Advances states, each by the same number of steps; a row's outcome depends on that row alone, bit for bit,
        and not on how its steps are cut.

        All that is computed is kept, or, if it raises, nothing.

        Args:
            slots: int32 [rows], different ones.
            inputs: float32 [rows computed, steps, width of a step], the rows behind the last slot being filler; without
                steps nothing is changed.
            wanted: bool [rows], whether the forecast from the state after these steps is asked for.

        Raises:
            OutOfDeviceMemory: It is too large for the device now.
        """

    def read(self, slots: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        """Copies of states: float32 [slots, width], on the host."""

    def write(self, slots: npt.NDArray[np.int32], states: npt.NDArray[np.float32]) -> None:
        """Puts states, as `read` gives them, into slots."""


ScanT = TypeVar("ScanT", bound=Scan)


class Executor(Protocol[ScanT]):
    """Owns models on one device. All calls come from one thread, one at a time."""

    @property
    def device(self) -> str:
        """The device by name: `cpu`, `cuda:0`."""

    def load(self, key: ModelKey, directory: Path) -> None:
        """Puts a package on the device.

        Raises:
            PackageError: The weights do not fit the description.
        """

    def plan(self, key: ModelKey) -> PlanReport:
        """How a model that is loaded is executed."""

    def is_ragged(self, key: ModelKey) -> bool:
        """Whether rows of a model are computed to their own ends only, and as many as there are: then there is neither
        padding nor filler in an execution, and stairs change nothing."""

    def blank(self, key: ModelKey, rows: int, steps: int) -> Inputs:
        """Inputs of a model's width and dtype that are all padding: [rows, steps, width]."""

    def run(self, key: ModelKey, batch: Batch) -> BatchResult:
        """Computes a batch. A row's answer depends on that row alone, and not on the stairs.

        Raises:
            OutOfDeviceMemory: The batch is too large for the device now.
        """

    def begin(self, key: ModelKey, inputs: Inputs) -> ScanT:
        """Puts a row of one step or more, [steps, width], on the device, to be run in chunks."""

    def advance(self, key: ModelKey, scans: Sequence[ScanT], phase: int, steps: int, rows: int) -> None:
        """Runs the next `steps` steps of a phase that all rows can go on with, or what is left of it.

        Args:
            rows: Rows to compute, at least as many as there are scans; the rest is filler. Where rows are ragged just
                as many, and no more steps than the longest has left.
        """

    def finish(self, key: ModelKey, scan: ScanT) -> BatchResult:
        """The result of a row that is done, as `run` gives it for a batch of this row alone: bit for bit."""

    def session_states(self, key: ModelKey) -> SessionStates:
        """Room for the sessions of a model, with no slot so far; each call gives another.

        Raises:
            InvalidArgument: The model can't read bit by bit.
            PackageError: Its weights can't be had a second time, where sessions need them in another precision.
        """

    def unload(self, key: ModelKey) -> None:
        """Forgets a model and frees its memory."""

    def memory_bytes(self) -> Mapping[str, int]:
        """Device memory by kind (`weights`, `allocated`)."""
