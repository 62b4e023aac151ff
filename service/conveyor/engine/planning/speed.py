"""How fast candidates are, on batches as the engine would make them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from conveyor.domain import ModelKey
from conveyor.engine.batches import assemble
from conveyor.engine.batching.backlog import Row
from conveyor.engine.batching.policy import plan_batch
from conveyor.engine.executors.port import Batch, Executor
from conveyor.engine.warmup import measure_costs
from conveyor.wire.messages import NO_DEADLINE, Inputs

__all__ = ["BATCH_ROWS", "BATCH_WEIGHTS", "row_microseconds", "speedup"]

# One row as for a lone caller, some, and a full batch, which counts twice: there speed is what capacity depends on.
BATCH_ROWS = (1, 8, 64)
BATCH_WEIGHTS = (1.0, 1.0, 2.0)

# Rows that wait, from which batches of similar lengths are taken as the policy takes them.
_WAITING = 256
_BATCHES = {1: 24, 8: 8, 64: 4}
_REPEATS = 5


def row_microseconds(
    executors: Mapping[str, Executor[Any]],
    key: ModelKey,
    rows: Sequence[Inputs],
    clock: Callable[[], float],
    seed: int = 0,
) -> Mapping[str, tuple[float, ...]]:
    """Microseconds a row, for each of `BATCH_ROWS`, by name.

    Every batch is cut by the executor's own cost table, and timed a few times in turn with the other executors'; the
    least counts, since all else is disturbance.
    """
    groups = _groups(rows, seed)
    batches: dict[str, list[Batch]] = {}
    for name, executor in executors.items():
        costs = measure_costs(executor, key, clock)
        batches[name] = [assemble(plan_batch(group, costs)) for group in groups]
    least = {name: [math.inf] * len(groups) for name in executors}
    for _ in range(_REPEATS):
        for index in range(len(groups)):
            for name, executor in executors.items():
                started = clock()
                executor.run(key, batches[name][index])
                least[name][index] = min(least[name][index], clock() - started)
    return {name: tuple(_per_row(groups, seconds, size) for size in BATCH_ROWS) for name, seconds in least.items()}


def speedup(reference: Sequence[float], candidate: Sequence[float]) -> float:
    """How many times as fast: the geometric mean over `BATCH_ROWS`, weighted."""
    logs = [math.log(ours / theirs) for ours, theirs in zip(reference, candidate, strict=True)]
    return math.exp(sum(w * log for w, log in zip(BATCH_WEIGHTS, logs, strict=True)) / sum(BATCH_WEIGHTS))


def _groups(rows: Sequence[Inputs], seed: int) -> list[list[Row]]:
    """Rows that would run together, for each of `BATCH_ROWS` in turn."""
    chance = np.random.default_rng(seed)
    waiting = sorted((rows[index] for index in chance.integers(len(rows), size=_WAITING)), key=len)
    entries = [Row(0.0, number, len(row), NO_DEADLINE, 0.0, row) for number, row in enumerate(waiting)]
    groups = []
    for size in BATCH_ROWS:
        whole = [entries[first : first + size] for first in range(0, _WAITING, size)]
        # Some of every length.
        groups += [whole[int(place)] for place in np.linspace(0, len(whole) - 1, _BATCHES[size])]
    return groups


def _per_row(groups: Sequence[Sequence[Row]], seconds: Sequence[float], size: int) -> float:
    taken = [spent for group, spent in zip(groups, seconds, strict=True) if len(group) == size]
    return 1e6 * sum(taken) / (size * len(taken))
