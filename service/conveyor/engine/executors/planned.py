"""The executor that follows the plan of each package, or what it was told instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import structlog
import torch

from conveyor.engine.executors.candidates import CANDIDATES, KERNEL, REFERENCE, Candidate
from conveyor.engine.executors.device_kind import device_kind, lesser_kinds
from conveyor.engine.executors.kernel.library import find_kernel
from conveyor.engine.executors.network import resolve_device
from conveyor.engine.executors.torch_executor import Choice, TorchExecutor
from conveyor.errors import PackageError, Problem
from conveyor.repository.files import MANIFEST, PLAN_LOCK
from conveyor.repository.plan_lock import CandidateFigures, DevicePlan, PlanLock, read_plan_lock
from conveyor.spec import RecurrentSpec

__all__ = ["open_executor", "versions_of"]

# What follows `plan.lock`, and the only precision that it may take from there.
_BY_PLAN: Mapping[str, str | None] = {"auto": None, "auto-float32": "float32"}

_log = structlog.get_logger(__name__)


def open_executor(device: str, precision: str, candidates: Sequence[Candidate] = CANDIDATES) -> TorchExecutor:
    """Opens a device.

    Args:
        device: As in `TorchExecutor`.
        precision: `auto` follows each package's `plan.lock`, and runs the reference where that has no plan that holds
            on this kind of device, or one that can't be followed here. `auto-float32` does the same, but takes what was
            found to be fastest among what computes in float32. `float32` runs the reference. Any other is computed by
            the first candidate that has it.

    Raises:
        ValueError: The device does not exist, or has nothing of this precision.
    """
    if precision == REFERENCE.precision:
        return TorchExecutor(device, lambda *_: Choice(REFERENCE, f"--precision {precision}"))
    if precision in _BY_PLAN:
        return TorchExecutor(device, _Locked(resolve_device(device), candidates, _BY_PLAN[precision]).choose)
    return TorchExecutor(device, _Forced(precision, resolve_device(device), candidates).choose)


def versions_of(executor: str) -> Mapping[str, str]:
    """The versions of the libraries that decide an executor's answers."""
    # What follows a plus says where a build came from (`+cpu`), not what it computes.
    libraries = {name: version(name).partition("+")[0] for name in dict.fromkeys(["torch", executor]) if name != KERNEL}
    kernel = find_kernel() if executor == KERNEL else None
    return {**libraries, KERNEL: str(kernel.revision)} if kernel else libraries


class _Forced:
    """One precision for every model."""

    def __init__(self, precision: str, device: torch.device, candidates: Sequence[Candidate]) -> None:
        self._precision = precision
        self._having = [c for c in candidates if c.precision == precision and device.type in c.devices]
        # Of the cell that every candidate knows.
        obstacles = [found.obstacle(device, RecurrentSpec(cell="lstm", hidden=1)) for found in self._having]
        if all(obstacles):
            reasons = "; ".join(filter(None, obstacles)) or "nothing computes in it there"
            raise ValueError(f"precision {precision!r} is not to be had on {device}: {reasons}")

    def choose(self, _: Path, device: torch.device, spec: RecurrentSpec) -> Choice:
        obstacles = []
        for candidate in self._having:
            obstacle = candidate.obstacle(device, spec)
            if obstacle is None:
                return Choice(candidate, f"--precision {self._precision}")
            obstacles.append(obstacle)
        message = f"can't be computed with --precision {self._precision}: {'; '.join(obstacles)}"
        raise PackageError([Problem(MANIFEST, "recurrent", message)])


class _Locked:
    """Each package's own plan for this kind of device, or the nearest that holds here too.

    Args:
        only: The one precision that is taken.
    """

    def __init__(self, device: torch.device, candidates: Sequence[Candidate], only: str | None) -> None:
        self._candidates = {str(candidate): candidate for candidate in candidates if device.type in candidate.devices}
        self._only = only

    def choose(self, directory: Path, device: torch.device, spec: RecurrentSpec) -> Choice:
        lock = read_plan_lock(directory)
        if lock is None:
            return Choice(REFERENCE, "no plan.lock")
        kind = device_kind(device)
        found = _find_plan(lock, kind)
        if found is None:
            return Choice(REFERENCE, f"no plan for {kind} in plan.lock")
        source, plan = found
        executor, precision = plan.executor, plan.precision
        if self._only not in (None, precision):
            fitting = [
                figures
                for figures in plan.candidates
                if figures.precision == self._only and not figures.refused and self._runs(figures, device, spec)
            ]
            if source != PLAN_LOCK:
                fitting = [figures for figures in fitting if figures.executor == KERNEL]
            source += f", {self._only} only"
            if not fitting:
                return Choice(REFERENCE, f"{source}: nothing that runs here was measured")
            fastest = max(fitting, key=lambda figures: figures.speedup)
            executor, precision = fastest.executor, fastest.precision
        wanted = f"{executor} {precision}"
        candidate = self._candidates.get(wanted)
        obstacle = candidate.obstacle(device, spec) if candidate else "this server does not know it"
        if candidate is None or obstacle:
            _log.warning(
                "the plan can't be followed; the reference runs", package=str(directory), plan=wanted, reason=obstacle
            )
            return Choice(REFERENCE, f"{source} says {wanted}, but {obstacle}")
        # Of a candidate that the plan did not choose, the lock does not say.
        if candidate.executor == plan.executor and (installed := versions_of(candidate.executor)) != plan.versions:
            _log.warning(
                "the plan was measured with other versions",
                package=str(directory),
                measured=dict(plan.versions),
                installed=dict(installed),
            )
        return Choice(candidate, source)

    def _runs(self, figures: CandidateFigures, device: torch.device, spec: RecurrentSpec) -> bool:
        candidate = self._candidates.get(f"{figures.executor} {figures.precision}")
        return candidate is not None and candidate.obstacle(device, spec) is None


def _find_plan(lock: PlanLock, kind: str) -> tuple[str, DevicePlan] | None:
    """The plan for a kind of device, and what to call it.

    A library computes otherwise on another CPU, so its agreement and its speed are known where they were measured only.
    Our own kernel computes the same on all, to rounding.
    """
    if kind in lock.devices:
        return PLAN_LOCK, lock.devices[kind]
    nearest = next((lesser for lesser in lesser_kinds(kind) if lesser in lock.devices), None)
    if nearest is None or lock.devices[nearest].executor != KERNEL:
        return None
    return f"{PLAN_LOCK} for {nearest}", lock.devices[nearest]
