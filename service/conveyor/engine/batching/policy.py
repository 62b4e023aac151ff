"""Which rows run next, together, and in what shape. Pure: no torch, no clock."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, islice, takewhile
from operator import attrgetter

from conveyor.engine.batching.backlog import Queue, Row
from conveyor.engine.batching.costs import CostTable
from conveyor.engine.batching.shapes import (
    ROW_BUCKETS,
    STEP_BUCKETS,
    Stair,
    bucket,
    computed_rows,
    most_steps,
    staircase,
)

__all__ = ["BatchLimits", "Plan", "chunk_steps", "form_batch", "longest_whole", "plan_batch", "price_s"]

# A row never waits, inside its batch, for one more than this many times as long.
_STRETCH = 2.0
_STRETCH_STEPS = 16
# Ragged rows go together if they are no more unlike the first than this: reviews of some hundred words are then as
# cheap as in order of length, sentences are hardly dearer.
_ALIKE = 1.25
_ALIKE_STEPS = 64
# The rows of a batch come from so many times as many that are due first: 5 % cheaper than those due first alone.
_AMONG = 2
# Numbers of ragged rows that are priced.
_PRICED = (1, *ROW_BUCKETS, *range(160, 4096, 32))
# A batch of many rows holds the device for no more slices than this.
_SLICES_OF_A_BATCH = 2

_LENGTH = attrgetter("length")


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """The largest batch, and how long the device is held.

    rows: rows of a batch.
    padded_steps: rows × steps as computed, both rounded up; a single row may be longer.
    slice_s: seconds after which other rows get a turn: a batch of several rows takes two of these at most, a row whose
        lone execution takes longer than one is run in chunks of at most one.
    lane_rows, lane_steps: rows of one model that are run in chunks at the same time, and their steps, which bound the
        memory they hold; a single row may be longer.
    lane_share: part of the device time that rows in chunks get while others wait.
    """

    rows: int = 64
    padded_steps: int = 65_536
    slice_s: float = 0.02
    lane_rows: int = 16
    lane_steps: int = 262_144
    lane_share: float = 0.25


@dataclass(slots=True, eq=False)
class Plan:
    """Rows to run together, and how.

    rows: in descending order of length, as the staircase needs them.
    lengths: their steps.
    stairs: the calls; empty if no row has a step. One that has room for all where rows are ragged.
    seconds: what the execution should take.
    """

    rows: Sequence[Row]
    lengths: Sequence[int]
    stairs: Sequence[Stair]
    seconds: float


def form_batch(queue: Queue, limits: BatchLimits, padded_steps: int, costs: CostTable, now: float) -> Sequence[Row]:
    """The most urgent row and those that go best with it, as many of them as make a useful step cheapest.

    Args:
        padded_steps: The budget of steps now; a single row may exceed it.
        now: Monotonic seconds: no row gets company that would make it late, unless more rows wait than one batch
            holds. Then every row is urgent, and small batches would make more of them late.
    """
    if len(queue) == 1:
        return [queue.most_urgent()]
    form = _ragged_batch if costs.ragged else _like_batch
    return form(queue, limits, padded_steps, costs, now, crowded=len(queue) > limits.rows)


def _like_batch(
    queue: Queue, limits: BatchLimits, padded_steps: int, costs: CostTable, now: float, *, crowded: bool
) -> Sequence[Row]:
    """The rows that cost least beside the most urgent one: those most like it in length.

    Each batch is priced as the rectangle around its rows: where a step of more rows costs as much more (a CPU), few
    rows of one length are better than many of different ones, and their answers are not held up by the others'.
    """
    first = queue.most_urgent()
    longest_beside = max(_STRETCH * first.length, first.length + _STRETCH_STEPS)
    chosen: list[Row] = []
    longest = rows = useful = cheapest = 0
    seconds = 0.0
    too_large = False
    least = math.inf
    deadline = math.inf
    most_s = _SLICES_OF_A_BATCH * limits.slice_s
    for count, row in enumerate(queue.like(first, longest_beside), 1):
        length = row.length
        if length > longest:
            longest = length
            rows = 0
        if rows == 0 or count > rows:
            rows = bucket(count)
            seconds = costs.estimate_s(rows, longest)
            too_large = rows * most_steps(longest) > padded_steps
        if not crowded and row.deadline < deadline:
            deadline = row.deadline
        if chosen and (too_large or seconds > most_s or now + seconds > deadline):
            break
        chosen.append(row)
        # An empty row is work too.
        useful += length or 1
        per_step_s = seconds / useful
        if per_step_s <= least:
            least, cheapest = per_step_s, count
        if count == limits.rows:
            break
    return chosen[:cheapest]


def _ragged_batch(
    queue: Queue, limits: BatchLimits, padded_steps: int, costs: CostTable, now: float, *, crowded: bool
) -> Sequence[Row]:
    """The rows that are due first, of those that are not too unlike the most urgent one."""
    length = queue.most_urgent().length
    upper = max(_ALIKE * length, length + _ALIKE_STEPS)
    lower = min(length / _ALIKE, length - _ALIKE_STEPS)
    rows = list(islice((row for row in queue if lower <= row.length <= upper), _AMONG * limits.rows))
    if len(rows) > limits.rows:
        rows = sorted(rows, key=lambda row: abs(row.length - length))[: limits.rows]
    ends = list(accumulate([row.length for row in rows]))
    most_s = _SLICES_OF_A_BATCH * limits.slice_s
    longest = priced = cheapest = 0
    least = deadline = math.inf
    for count in (*takewhile(lambda count: count < len(rows), _PRICED), len(rows)):
        added = rows[priced:count]
        priced = count
        longest = max(longest, max([row.length for row in added]))
        if not crowded:
            deadline = min(deadline, min([row.deadline for row in added]))
        seconds = costs.estimate_s(count, ends[count - 1] / count)
        if cheapest and (count * longest > padded_steps or seconds > most_s or now + seconds > deadline):
            break
        # Where all are empty, the more the better.
        per_step_s = seconds / max(ends[count - 1], count)
        if per_step_s <= least:
            least, cheapest = per_step_s, count
    return rows[:cheapest]


def plan_batch(rows: Sequence[Row], costs: CostTable) -> Plan:
    """Orders rows and cuts their steps where that saves time."""
    ordered = sorted(rows, key=_LENGTH, reverse=True)
    lengths = [row.length for row in ordered]
    if costs.ragged and ordered:
        mean = sum(lengths) / len(rows)
        return Plan(ordered, lengths, [Stair(len(rows), max(lengths[0], 1))], costs.estimate_s(len(rows), mean))
    stairs = staircase(lengths, costs)
    return Plan(ordered, lengths, stairs, price_s(stairs, len(rows), costs))


def price_s(stairs: Sequence[Stair], rows: int, costs: CostTable) -> float:
    """Seconds that a staircase should take."""
    if not stairs:
        return costs.estimate_s(bucket(rows), 0)
    first, later = stairs[0], stairs[1:]
    seconds = costs.estimate_s(first.rows, first.steps)
    return seconds + sum(costs.cut_s * costs.factor + stair.steps * costs.step_s(stair.rows) for stair in later)


def longest_whole(costs: CostTable, slice_s: float) -> int:
    """The longest row that is run whole, in steps: alone it takes no more than a slice."""
    rows = computed_rows(1, costs)
    fixed_s = costs.estimate_s(rows, 0)
    per_step_s = costs.step_s(rows)
    if per_step_s <= 0:
        return STEP_BUCKETS[-1]
    return max(int((slice_s - fixed_s) / per_step_s), STEP_BUCKETS[-1])


def chunk_steps(rows: int, phases: int, remaining: int, fitting: int, costs: CostTable, slice_s: float) -> int:
    """How many steps rows in chunks go on before others get a turn: the most that fit into a slice and are needed.

    Where a cut takes up most of a slice, the steps between two cuts take as long as one: in less they would hardly move
    on. That may be a model of many layers, or a table that was measured while the machine was busy with other things.

    Args:
        rows: Rows computed together.
        phases: Directions × layers that a step passes through; one chunk runs one of them.
        remaining: Steps that the longest of the rows still needs in its phase.
        fitting: Steps that there is memory for.
    """
    cut_s = costs.cut_s * costs.factor / phases
    per_step_s = costs.step_s(rows) / phases
    most_s = max(slice_s - cut_s, cut_s)
    chosen = STEP_BUCKETS[0]
    for steps in STEP_BUCKETS[1:]:
        if chosen >= remaining or steps > fitting or steps * per_step_s > most_s:
            break
        chosen = steps
    return chosen
