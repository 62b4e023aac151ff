"""The plan of a package for one device: every candidate tried on the same rows, the fastest that may be chosen."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from conveyor.domain import ModelKey
from conveyor.engine.executors.candidates import CANDIDATES, REFERENCE, Candidate
from conveyor.engine.executors.device_kind import device_kind, device_name
from conveyor.engine.executors.network import load_network, prepare_torch, resolve_device
from conveyor.engine.executors.planned import versions_of
from conveyor.engine.executors.torch_executor import Choice, TorchExecutor
from conveyor.engine.planning.agreement import Agreement, Answers, compare, margins_of, run_rows
from conveyor.engine.planning.exactness import largest_dependence
from conveyor.engine.planning.speed import BATCH_ROWS, BATCH_WEIGHTS, row_microseconds, speedup
from conveyor.repository.plan_lock import CandidateFigures, DevicePlan
from conveyor.wire.messages import Inputs

__all__ = ["LEAST_GAIN", "make_plan"]

# What another candidate must gain to be worth leaving the reference; less may be noise.
LEAST_GAIN = 1.05


def make_plan(
    directory: Path,
    device: str,
    rows: Sequence[Inputs],
    data: str,
    margin: float,
    candidates: Sequence[Candidate] = CANDIDATES,
    clock: Callable[[], float] | None = None,
) -> tuple[str, DevicePlan]:
    """Measures the candidates on a package that was found in order; its `plan.lock` is neither read nor written.

    A candidate is refused if it can't run here, if its rows depend on their company, if a label differs from the
    reference's where that is surer than `margin`, or if a number differs by more than the package's tolerance.

    Args:
        directory: `…/<name>/<version>`.
        device: As in `TorchExecutor`.
        rows: What to try, one of a step or more among them.
        data: Where they come from, for the record.
        clock: Seconds, read around each execution; on a CPU by default those of this thread, which computes alone, so
            that what else the machine does counts little.

    Returns:
        The kind of device, and its plan.

    Raises:
        PackageError: The weights do not fit the description.
        ValueError: The device does not exist.
    """
    prepare_torch()
    trial = _Trial(directory, resolve_device(device), rows, margin)
    clock = clock or (time.thread_time if trial.device.type == "cpu" else time.perf_counter)
    others = [c for c in candidates if c is not REFERENCE and trial.device.type in c.devices]
    found = [trial.judge(candidate) for candidate in (REFERENCE, *others)]
    timed = row_microseconds(trial.accepted, trial.key, rows, clock)
    figures = [_with_speed(one, timed, timed[str(REFERENCE)]) for one in found]
    best = max((one for one in figures if not one.refused), key=lambda one: one.speedup)
    chosen = best if best.speedup >= LEAST_GAIN else figures[0]
    plan = DevicePlan(
        executor=chosen.executor,
        precision=chosen.precision,
        device=device_name(trial.device),
        data=data,
        rows=len(rows),
        margin=margin,
        batch_rows=BATCH_ROWS,
        batch_weights=BATCH_WEIGHTS,
        versions=versions_of(chosen.executor),
        candidates=tuple(figures),
    )
    return device_kind(trial.device), plan


@dataclass(frozen=True, slots=True)
class _Reference:
    answers: Answers
    dependence: float


class _Trial:
    """One package on one device, and what has been found so far."""

    def __init__(self, directory: Path, device: torch.device, rows: Sequence[Inputs], margin: float) -> None:
        self.key = ModelKey(directory.parent.name, directory.name)
        self.device = device
        self.accepted: dict[str, TorchExecutor] = {}
        self._directory = directory
        self._rows = rows
        self._margin = margin
        self._network = load_network(directory, device)
        self._tolerance = self._network.spec.tolerance
        self._margins = margins_of(self._network, rows)
        self._reference: _Reference | None = None

    def judge(self, candidate: Candidate) -> CandidateFigures:
        """Says why a candidate may not be chosen, or takes it among those that are timed; the reference comes first."""
        name = {"executor": candidate.executor, "precision": candidate.precision}
        obstacle = candidate.obstacle(self.device, self._network.recurrent.spec)
        if obstacle:
            return CandidateFigures(**name, refused=obstacle)
        executor = TorchExecutor(str(self.device), lambda *_: Choice(candidate, "planning"))
        executor.load(self.key, self._directory)
        answers = run_rows(executor, self.key, self._rows)
        dependence = self._dependence(candidate)
        if self._reference is None:
            self._reference = _Reference(answers, dependence)
        agreement = compare(self._reference.answers, answers, self._margins, self._margin)
        refused = self._refuse(agreement, dependence, self._reference.dependence)
        if not refused:
            self.accepted[str(candidate)] = executor
        shown = agreement.largest_difference if math.isfinite(agreement.largest_difference) else 0.0
        return CandidateFigures(
            **name,
            refused=refused,
            flips=agreement.flips,
            flips_within=agreement.flips_within,
            largest_difference=float(f"{shown:.3g}"),
        )

    def _dependence(self, candidate: Candidate) -> float:
        network = load_network(self._directory, self.device)
        candidate.install(network)
        return largest_dependence(network, self._rows)

    def _refuse(self, agreement: Agreement, dependence: float, of_reference: float) -> str:
        # On a device where not even the reference is bit for bit independent, the tolerance bounds it.
        if dependence > (self._tolerance if of_reference > 0 else 0.0):
            return f"a row depends on its company by up to {dependence:.2g}"
        if agreement.flips:
            return f"{agreement.flips} labels differ beyond the margin of {self._margin:g}"
        if not math.isfinite(agreement.largest_difference):
            return "gives values that are not finite"
        if agreement.largest_difference > self._tolerance:
            return f"differs by up to {agreement.largest_difference:.2g}, the tolerance is {self._tolerance:g}"
        return ""


def _with_speed(
    figures: CandidateFigures, timed: Mapping[str, tuple[float, ...]], reference: tuple[float, ...]
) -> CandidateFigures:
    microseconds = timed.get(f"{figures.executor} {figures.precision}")
    if microseconds is None:
        return figures
    return figures.model_copy(
        update={
            "row_us": tuple(round(each, 1) for each in microseconds),
            "speedup": round(speedup(reference, microseconds), 3),
        }
    )
