"""The policy serves the most urgent row, beside rows like it, in the shapes that cost least."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conveyor.engine.batching.backlog import Backlog, BacklogLimits, Queue, Row
from conveyor.engine.batching.budget import StepBudget
from conveyor.engine.batching.costs import CostTable, uniform_costs
from conveyor.engine.batching.fairness import FairShare, due_time
from conveyor.engine.batching.policy import BatchLimits, chunk_steps, form_batch, longest_whole, plan_batch, price_s
from conveyor.engine.batching.shapes import ROW_BUCKETS, STEP_BUCKETS, Stair, bucket, most_steps, staircase

COSTS = uniform_costs(row_step_s=1e-6, call_s=1e-4)
lengths_lists = st.lists(st.integers(0, 700), min_size=1, max_size=64)


def backlog_of(lengths: list[int]) -> Backlog[str]:
    """Rows with ids 0, 1, … in order of urgency."""
    backlog: Backlog[str] = Backlog(BacklogLimits(rows=10_000, steps=10_000_000))
    rows = [Row(float(i), i, n, float("inf"), 0.0, np.zeros((n, 1), dtype=np.int32)) for i, n in enumerate(lengths)]
    backlog.add("m", rows)
    return backlog


def queue_of(lengths: list[int]) -> Queue:
    """The queue of such rows."""
    queue = backlog_of(lengths).queue("m")
    assert queue is not None
    return queue


def test_rows_like_the_most_urgent_go_with_it() -> None:
    """A long text that is less urgent waits for its own batch."""
    batch = form_batch(queue_of([5, 900, 6, 4, 5]), BatchLimits(), 65_536, COSTS, 0.0)
    assert {0, 2, 3, 4} == {row.id for row in batch}


def test_a_short_text_never_waits_inside_a_batch_for_a_long_one() -> None:
    """Rows more than twice as long stay out even if there is room."""
    assert {0} == {row.id for row in form_batch(queue_of([20, 400]), BatchLimits(), 65_536, COSTS, 0.0)}


@pytest.mark.parametrize("ragged", [False, True])
def test_no_row_gets_company_that_would_make_it_late(ragged: bool) -> None:
    """An urgent row that is in time alone goes alone."""
    costs = replace(COSTS, ragged=ragged)
    backlog = backlog_of([20] * 64)
    (urgent,) = [row for row in backlog.queue("m") or () if row.id == 0]
    backlog.remove([0])
    backlog.add("m", [urgent._replace(deadline=COSTS.estimate_s(2, 20) * 1.5)])
    queue = backlog.queue("m")
    assert queue is not None
    assert len(form_batch(queue, BatchLimits(), 65_536, costs, 0.0)) < 10


@pytest.mark.parametrize("ragged", [False, True])
def test_a_batch_of_several_rows_takes_two_slices_at_most(ragged: bool) -> None:
    """Rows of medium length do not add up to an execution that holds up everybody."""
    limits = BatchLimits(slice_s=0.005)
    batch = form_batch(queue_of([1000] * 64), limits, 65_536, replace(COSTS, ragged=ragged), 0.0)
    assert COSTS.estimate_s(bucket(len(batch)), 1000) <= 2 * limits.slice_s


def test_a_batch_is_as_large_as_makes_a_step_cheapest() -> None:
    """Where calls are dear, rows of many lengths go together; where steps are dear, only those alike."""
    lengths = [20, 20, 20, 20, 30, 30, 30, 30]
    dear_calls = uniform_costs(row_step_s=1e-9, call_s=1e-2)
    dear_steps = uniform_costs(row_step_s=1e-5, call_s=1e-9)
    assert 8 == len(form_batch(queue_of(lengths), BatchLimits(), 65_536, dear_calls, 0.0))
    assert 4 == len(form_batch(queue_of(lengths), BatchLimits(), 65_536, dear_steps, 0.0))


def test_ragged_rows_go_together_whatever_a_step_costs() -> None:
    """No row pays for a longer one, so a batch is as large as may be, and runs in the shape of its rows."""
    ragged = replace(uniform_costs(row_step_s=1e-5, call_s=1e-9), ragged=True)
    batch = form_batch(queue_of([20, 20, 30, 30, 30]), BatchLimits(), 65_536, ragged, 0.0)
    plan = plan_batch(batch, ragged)
    assert 5 == len(batch)
    assert [(5, 30)] == list(plan.stairs)
    assert 130e-5 == pytest.approx(plan.seconds, rel=1e-3)


def test_ragged_rows_go_in_the_order_in_which_they_are_due() -> None:
    """Requests end one after the other, not all with the last batch: of what was due first, little is left behind."""
    ragged = replace(uniform_costs(row_step_s=1e-6, call_s=1e-5), ragged=True)
    backlog = backlog_of([1 + 7 * i % 50 for i in range(64 * 8)])
    ends: dict[int, int] = {}
    for number in range(8):
        queue = backlog.queue("m")
        assert queue is not None
        batch = form_batch(queue, BatchLimits(), 65_536, ragged, 0.0)
        assert 64 == len(batch)
        backlog.take("m", batch)
        ends.update((row.id // 64, number) for row in batch)

    assert all(end <= request + 2 for request, end in ends.items())


def test_a_large_batch_of_ragged_rows_uses_its_budget() -> None:
    """Also beyond the sizes that padded batches come in."""
    ragged = replace(uniform_costs(row_step_s=1e-8, call_s=1e-4), ragged=True)
    batch = form_batch(queue_of([50] * 600), BatchLimits(rows=512), 16_384, ragged, 0.0)
    assert 16_384 * 0.9 <= 50 * len(batch) <= 16_384


def test_ragged_rows_are_no_more_than_make_a_step_cheapest() -> None:
    """Where a larger batch is dearer a step, as where it leaves the cache, it is not formed."""
    table = CostTable(
        (1, 16, 64), (8, 64), [[8e-5, 64e-5], [16e-5, 128e-5], [128e-5, 1024e-5]], cut_s=1e-4, ragged=True
    )
    assert 16 == len(form_batch(queue_of([20] * 64), BatchLimits(), 65_536, table, 0.0))


def test_ragged_rows_much_longer_or_shorter_than_the_most_urgent_wait() -> None:
    """A short text is not held up by a long one, and a step of few rows costs more a row."""
    ragged = replace(uniform_costs(row_step_s=1e-6, call_s=1e-4), ragged=True)
    short = form_batch(queue_of([20, 400, 30, 84, 85]), BatchLimits(), 65_536, ragged, 0.0)
    long = form_batch(queue_of([1000, 20, 799, 800, 1251, 1250]), BatchLimits(), 65_536, ragged, 0.0)
    assert {0, 2, 3} == {row.id for row in short}
    assert {0, 3, 5} == {row.id for row in long}


@given(st.lists(st.integers(0, 300), min_size=1, max_size=80), st.integers(1, 16), st.integers(1, 2000), st.booleans())
def test_a_batch_keeps_to_its_limits_and_holds_the_most_urgent(
    lengths: list[int], rows: int, steps: int, ragged: bool
) -> None:
    """Only a lone row may exceed the budget of steps, and no row is passed over for ever."""
    backlog = backlog_of(lengths)
    served: list[int] = []
    while (queue := backlog.queue("m")) is not None:
        batch = form_batch(queue, BatchLimits(rows=rows), steps, replace(COSTS, ragged=ragged), 0.0)
        ids = [row.id for row in batch]
        assert backlog.ids("m")[0] in ids
        assert 1 <= len(ids) <= rows
        computed = len(ids) * max([row.length for row in batch]) if ragged else computed_rectangle(batch)
        assert len(ids) == 1 or computed <= steps
        backlog.remove(ids)
        served += ids

    assert list(range(len(lengths))) == sorted(served)


def computed_rectangle(rows: Sequence[Row]) -> int:
    """Rows × steps of what a batch is computed as, fillers and rounding included."""
    plan = plan_batch(rows, COSTS)
    return bucket(len(rows)) * max(sum(stair.steps for stair in plan.stairs), 1)


@given(st.integers(0, 30_000), st.floats(1e-8, 1e-3))
def test_no_staircase_is_longer_than_was_reckoned_with(longest: int, cut_s: float) -> None:
    """Whatever a cut costs, rounding adds no steps beyond the bound that limits are kept by."""
    costs = uniform_costs(row_step_s=1e-6, call_s=cut_s)
    steps = sum(stair.steps for stair in staircase([longest, longest // 3], costs))
    assert longest <= steps or longest == 0
    assert steps <= most_steps(longest) <= max(1.6 * longest, 2) + 1


@given(lengths_lists)
def test_a_staircase_covers_every_row_in_shapes_out_of_few(lengths: list[int]) -> None:
    """Every row that has not ended is computed, rows never grow, and all shapes come from the buckets."""
    lengths = sorted(lengths, reverse=True)
    stairs = staircase(lengths, COSTS)

    ends = list(itertools.accumulate(stair.steps for stair in stairs))
    assert (ends[-1] if ends else 0) >= lengths[0]
    start = 0
    for stair, end in zip(stairs, ends, strict=True):
        assert stair.rows >= sum(length > start for length in lengths)
        start = end
    assert all(a.rows >= b.rows for a, b in itertools.pairwise(stairs))
    assert all(stair.rows in ROW_BUCKETS and stair.steps in STEP_BUCKETS for stair in stairs)


@given(lengths_lists)
def test_a_staircase_costs_no_more_than_one_rectangle_of_calls(lengths: list[int]) -> None:
    """Cutting is done where it saves; at worst the steps are run without dropping any row."""
    lengths = sorted(lengths, reverse=True)
    stairs = staircase(lengths, COSTS)
    steps = sum(stair.steps for stair in stairs)
    whole = [Stair(bucket(len(lengths)), size) for size in _greedy(steps)]

    cost = sum(COSTS.cut_s + stair.steps * COSTS.step_s(stair.rows) for stair in stairs)
    assert cost <= sum(COSTS.cut_s + stair.steps * COSTS.step_s(stair.rows) for stair in whole) + 1e-12


def _greedy(steps: int) -> list[int]:
    sizes = []
    while steps > 0:
        sizes.append(next((size for size in STEP_BUCKETS if size >= steps), STEP_BUCKETS[-1]))
        steps -= sizes[-1]
    return sizes


def test_rows_of_very_different_length_are_cut_apart() -> None:
    """One row of 512 steps beside 31 of 8 is not computed as 32 of 512."""
    stairs = staircase([512] + [8] * 31, COSTS)
    assert sum(stair.rows * stair.steps for stair in stairs) < 2 * (512 * 2 + 8 * 32)


@given(st.integers(1, 400))
def test_a_batch_has_at_least_two_rows_out_of_few_sizes(rows: int) -> None:
    """A lone row is computed as two, since one alone is computed by other kernels."""
    assert max(rows, 2) <= bucket(rows) <= max(1.5 * rows, 2, rows + 127)


def test_the_plan_orders_rows_by_length_and_prices_them() -> None:
    """What a batch should take is the sum of its calls."""
    rows = list(queue_of([3, 40, 12]))
    plan = plan_batch(rows, COSTS)

    assert [40, 12, 3] == [row.length for row in plan.rows]
    assert plan.seconds == price_s(plan.stairs, 3, COSTS) > 0
    assert plan_batch(list(queue_of([0])), COSTS).stairs == ()


def test_estimates_lie_on_lines_between_and_beyond_the_measured_points() -> None:
    """The table reproduces what was measured, and its straight lines go on outside."""
    table = CostTable((2, 10), (10, 30), [[1.0, 3.0], [5.0, 7.0]], cut_s=0.1)

    assert 1.0 == table.estimate_s(2, 10)
    assert 7.0 == table.estimate_s(10, 30)
    assert 4.0 == pytest.approx(table.estimate_s(6, 20))
    assert 13.0 == pytest.approx(table.estimate_s(10, 90))
    assert 0.0 == table.estimate_s(2, 0)
    assert 0.1 == pytest.approx(table.step_s(2))


def test_the_table_follows_a_machine_that_becomes_slower() -> None:
    """After some tens of executions that take twice as long, estimates are near twice; one outlier moves little."""
    table = uniform_costs(1e-6, 1e-4)
    before = table.estimate_s(8, 16)
    table.observe(1.0, 1000.0)
    assert table.estimate_s(8, 16) < 1.2 * before
    for _ in range(200):
        expected = table.estimate_s(8, 16)
        table.observe(expected, 2 * before)
    assert 2 * before == pytest.approx(table.estimate_s(8, 16), rel=0.01)


def test_overhead_of_short_executions_is_not_taken_for_slowness() -> None:
    """What an interpreter that is busy elsewhere adds to small batches does not make a full one look dear."""
    table = uniform_costs(1e-6, 1e-4)
    full = table.estimate_s(64, 64)
    for _ in range(300):
        table.observe(table.estimate_s(2, 8), 0.05)
    assert 0.05 == pytest.approx(table.estimate_s(2, 8), rel=0.05)
    assert full + 0.05 == pytest.approx(table.estimate_s(64, 64), rel=0.05)
    for _ in range(300):
        table.relax()
    assert full == pytest.approx(table.estimate_s(64, 64), rel=0.01)


def test_long_rows_are_those_that_would_hold_the_device() -> None:
    """A lone row beyond a slice is run in chunks, each of which fits into a slice."""
    limits = BatchLimits(slice_s=0.01)
    longest = longest_whole(COSTS, limits.slice_s)
    assert COSTS.estimate_s(2, longest) <= limits.slice_s < COSTS.estimate_s(2, longest + 1000)

    slow = uniform_costs(row_step_s=1e-4, call_s=1e-4)
    for rows in (2, 16):
        steps = chunk_steps(rows, 2, 10_000, 10_000, slow, limits.slice_s)
        assert steps in STEP_BUCKETS
        assert (slow.cut_s + steps * slow.step_s(rows)) / 2 <= limits.slice_s
    assert 4 == chunk_steps(2, 2, 3, 10_000, COSTS, limits.slice_s)
    assert 2 == chunk_steps(2, 2, 10_000, 3, COSTS, limits.slice_s)


@given(
    cut_s=st.floats(1e-6, 1.0),
    row_step_s=st.floats(1e-7, 1e-3),
    phases=st.integers(1, 16),
    rows=st.sampled_from([2, 16]),
)
def test_a_long_row_moves_on_whatever_a_cut_costs(cut_s: float, row_step_s: float, phases: int, rows: int) -> None:
    """At least a third of its time is its steps, unless a chunk is as long as chunks get: a table that was measured on
    a busy machine once made a text of 30 000 words take minutes instead of seconds."""
    costs = replace(uniform_costs(row_step_s=row_step_s, call_s=1e-4), cut_s=cut_s)
    steps = chunk_steps(rows, phases, 10_000, 10_000, costs, 0.02)
    assert 3 * steps * costs.step_s(rows) >= costs.cut_s or steps == STEP_BUCKETS[-1]


def test_a_large_request_leaves_room_between_its_rows() -> None:
    """Another caller's row that comes a little later is due before the tail of a thousand rows; so is a hurried one."""
    tail = due_time(now=0.0, deadline=float("inf"), priority=1, ahead_s=999 * 0.01)
    assert due_time(now=0.5, deadline=float("inf"), priority=1, ahead_s=0.0) < tail
    assert due_time(now=0.5, deadline=float("inf"), priority=0, ahead_s=0.0) < due_time(0.0, float("inf"), 1, 0.0)
    assert 0.7 == due_time(now=0.5, deadline=0.7, priority=2, ahead_s=5.0)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.001, 0.1)), min_size=50, max_size=200))
def test_models_that_wait_all_the_time_share_the_device_equally(charges: list[tuple[str, float]]) -> None:
    """Whatever their executions cost, none that waits falls behind another by more than the largest execution."""
    share: FairShare[str] = FairShare()
    used = dict.fromkeys("abc", 0.0)
    for _, seconds in charges:
        chosen = share.next(sorted(used))
        share.charge(chosen, seconds)
        used[chosen] += seconds
    assert max(used.values()) - min(used.values()) <= 0.1 + 1e-9


def test_idling_saves_nothing_up() -> None:
    """A model that comes back after a pause does not take the device for as long as it paused."""
    share: FairShare[str] = FairShare()
    for _ in range(100):
        share.charge(share.next(["a"]), 1.0)
    turns = []
    for _ in range(10):
        turns.append(share.next(["a", "b"]))
        share.charge(turns[-1], 1.0)
    assert 4 <= turns.count("b") <= 6


def test_the_budget_halves_and_grows_back_to_its_limit() -> None:
    """Memory that runs out shrinks batches at once; good executions bring them back slowly."""
    budget = StepBudget(1000)
    budget.halve(900)
    budget.halve(500)
    assert 225 == budget.steps
    budget.grow()
    assert 225 < budget.steps < 300
    for _ in range(100):
        budget.grow()
    assert 1000 == budget.steps
    for _ in range(100):
        budget.halve(1000)
    assert 1 == budget.steps
