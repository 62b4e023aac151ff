"""Every row that enters the engine leaves it in exactly one answer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conveyor.domain import ModelKey
from conveyor.wire.messages import NO_DEADLINE, ResultBlock
from support.bench import MODEL, Bench
from support.executors import FAILS, NOT_FINITE

OTHER = ModelKey("other", "1")

contents = st.one_of(st.lists(st.integers(1, 9), max_size=20), st.integers(257, 900).map(lambda length: [1] * length))


@pytest.mark.parametrize("stepwise", [False, True])
@given(rows=st.lists(contents, min_size=1, max_size=30), requests=st.integers(1, 5))
def test_each_row_gets_its_own_answer(stepwise: bool, rows: list[list[int]], requests: int) -> None:
    """Batching, sorting, padding and chunks hand no row another's result, and no row two."""
    bench = Bench(stepwise=stepwise)
    for first in range(requests):
        bench.submit(dict(list(enumerate(rows))[first::requests]))
        bench.loop.step()
    bench.finish()

    expected = {i: np.cumsum(row).tolist() if stepwise else [float(sum(row))] for i, row in enumerate(rows)}
    assert expected == bench.answers()
    assert {} == bench.failures()


@given(
    st.lists(
        st.tuples(st.lists(contents, min_size=1, max_size=4), st.sampled_from([0, 1, 2]), st.floats(0, 0.01)),
        min_size=1,
        max_size=15,
    ),
    st.booleans(),
    st.randoms(),
)
def test_every_row_ends_once_whatever_is_cancelled_late_or_at_fault(
    arrivals: list[tuple[list[list[int]], int, float]], ragged: bool, chance: object
) -> None:
    """Answered, failed or taken back: exactly one of the three, and the queue is empty at the end."""
    bench = Bench(ragged=ragged)
    sums: dict[int, float] = {}
    cancelled: set[int] = set()
    for rows, priority, patience in arrivals:
        ids = range(len(sums), len(sums) + len(rows))
        content = dict(zip(ids, map(list, rows), strict=True))
        for row_id, row in content.items():
            if row and chance.random() < 0.1:  # type: ignore[attr-defined]
                row[-1] = chance.choice([FAILS, NOT_FINITE])  # type: ignore[attr-defined]
            sums[row_id] = float(sum(row)) if not {FAILS, NOT_FINITE} & set(row) else np.nan
        deadline = bench.clock.now + patience if patience < 0.005 else NO_DEADLINE
        bench.submit(content, priority=priority, deadline=deadline)
        if chance.random() < 0.3:  # type: ignore[attr-defined]
            victims = [row_id for row_id in ids if chance.random() < 0.5]  # type: ignore[attr-defined]
            bench.loop.cancel(victims)
            cancelled |= set(victims)
        bench.loop.step()
    bench.finish()

    answered, failed = bench.answers(), bench.failures()
    assert not set(answered) & set(failed)
    assert set(sums) - cancelled <= set(answered) | set(failed)
    assert all([sums[row_id]] == value for row_id, value in answered.items())
    assert all(error in ("Internal", "DeadlineExceeded") for error in failed.values())
    assert {row_id for row_id, error in failed.items() if error == "Internal"} <= {
        row_id for row_id, value in sums.items() if np.isnan(value)
    }


def test_the_row_at_fault_fails_alone() -> None:
    """A batch that fails is divided until the row that fails stands alone; its neighbours are answered."""
    bench = Bench()
    bench.submit({n: [n] for n in range(1, 8)} | {9: [FAILS]})
    bench.finish()

    assert {9: "Internal"} == bench.failures()
    assert {n: [float(n)] for n in range(1, 8)} == bench.answers()


def test_a_long_row_at_fault_fails_alone() -> None:
    """Long rows that are run together are told apart too."""
    bench = Bench()
    bench.submit({1: [1] * 300, 2: [1] * 299 + [FAILS], 3: [2] * 300})
    bench.finish()

    assert {2: "Internal"} == bench.failures()
    assert {1: [300.0], 3: [600.0]} == bench.answers()


@pytest.mark.parametrize("stepwise", [False, True])
def test_a_result_that_is_not_finite_fails_its_row_alone(stepwise: bool) -> None:
    """NaN never reaches a caller, and its neighbours are answered."""
    bench = Bench(stepwise=stepwise)
    bench.submit({1: [1, NOT_FINITE], 2: [5]})
    bench.finish()

    assert {1: "Internal"} == bench.failures()
    assert {2: [5.0]} == bench.answers()


def test_expired_rows_never_run() -> None:
    """A row whose deadline passes while it waits is answered and not computed."""
    bench = Bench()
    bench.submit({1: [7], 2: [1] * 300}, deadline=1.0)
    bench.clock.now = 1.0
    bench.finish()

    assert {1: "DeadlineExceeded", 2: "DeadlineExceeded"} == bench.failures()
    assert [] == bench.executor.batches
    assert [] == bench.executor.chunks


@pytest.mark.parametrize("ragged", [False, True])
def test_a_row_whose_answer_would_come_too_late_never_runs(ragged: bool) -> None:
    """The table says how long the batch takes: what can't be in time is told now, beside others and alone."""
    bench = Bench(ragged=ragged)
    bench.submit({1: [7]}, deadline=bench.clock.now + 1e-5)
    bench.loop.step()
    bench.submit({3: [7]}, deadline=bench.clock.now + 1e-5)
    bench.submit({2: [8]})
    bench.finish()

    assert {1: "DeadlineExceeded", 3: "DeadlineExceeded"} == bench.failures()
    assert {2: [8.0]} == bench.answers()


def test_a_long_row_that_expires_under_way_stops() -> None:
    """A deadline holds between chunks too."""
    bench = Bench()
    bench.submit({1: [1] * 5000}, deadline=bench.clock.now + 1.0)
    while not bench.executor.chunks:
        bench.loop.step()
    bench.clock.now += 1.0
    bench.finish()

    assert {1: "DeadlineExceeded"} == bench.failures()
    assert 1 == len(bench.executor.chunks)


def test_a_long_row_that_cannot_be_in_time_never_begins() -> None:
    """The table says how long it takes alone."""
    bench = Bench()
    bench.submit({1: [1] * 5000}, deadline=bench.clock.now + 0.002)
    bench.finish()

    assert {1: "DeadlineExceeded"} == bench.failures()
    assert [] == bench.executor.chunks


def test_a_passing_slowness_does_not_lock_out_deadlines() -> None:
    """Estimates that keep rows from running lean back, so that rows with deadlines are served again."""
    bench = Bench()
    bench.executor.call_s = 0.05
    for n in range(100):
        bench.submit({n: [1] * 10})
        bench.finish()
    bench.executor.call_s = 1e-4
    for n in range(1000, 1200):
        bench.submit({n: [1] * 10}, deadline=bench.clock.now + 0.01)
        bench.finish()

    assert all(n in bench.answers() for n in range(1150, 1200))


def test_cancelled_rows_never_run() -> None:
    """A row nobody waits for leaves the queue, or the lane, without an answer."""
    bench = Bench()
    bench.submit({1: [7], 2: [8], 3: [1] * 5000})
    bench.loop.cancel([1])
    while not bench.executor.chunks:
        bench.loop.step()
    bench.loop.cancel([3])
    bench.finish()

    assert {2: [8.0]} == bench.answers()
    assert {} == bench.failures()
    assert len(bench.executor.chunks) < 3


def test_short_rows_go_on_beside_a_long_one() -> None:
    """A text of 10 000 steps neither stalls short ones nor is put off by them for ever."""
    bench = Bench()
    bench.submit({0: [1] * 10_000})
    answered: set[int] = set()
    for n in range(1, 1000):
        before = bench.clock.now
        bench.submit({n: [1] * 10})
        while n not in answered:
            bench.loop.step()
            newly = set(bench.answers())
            bench.replies.clear()
            assert not newly & answered
            answered |= newly
        assert bench.clock.now - before < 0.003
    assert 0 in answered


def test_long_rows_join_those_under_way() -> None:
    """A long row that comes later is run in the same calls as the one before it."""
    bench = Bench()
    bench.submit({1: [1] * 3000})
    bench.loop.step()
    bench.submit({2: [1] * 3000})
    bench.finish()

    assert {1: [3000.0], 2: [3000.0]} == bench.answers()
    alone = Bench()
    alone.submit({1: [1] * 3000})
    alone.finish()
    assert len(bench.executor.chunks) < 1.5 * len(alone.executor.chunks)


def test_the_earliest_deadline_and_the_higher_priority_go_first() -> None:
    """Rows of like length leave in the order of their urgency."""
    bench = Bench()
    bench.submit({n: [1] * 50 for n in range(8)}, priority=2)
    bench.submit({n: [1] * 50 for n in range(8, 16)})
    bench.submit({n: [1] * 50 for n in range(16, 24)}, deadline=bench.clock.now + 0.5)
    bench.submit({n: [1] * 50 for n in range(24, 32)}, priority=0)
    bench.finish()

    assert [3, 2, 1, 0] == [bench.order()[8 * n] // 8 for n in range(4)]


def test_a_single_row_does_not_wait_for_a_thousand_of_another_caller() -> None:
    """Rows of one large request are spread; a small one that comes later is served among them."""
    bench = Bench(queue_rows=3000)
    bench.submit({n: [1] * 200 for n in range(2000)})
    bench.loop.step()
    bench.clock.now += 0.01
    bench.submit({5000: [1] * 200})
    bench.finish()

    assert bench.order().index(5000) < 400


def test_models_take_turns() -> None:
    """A flood for one model does not hold up another."""
    bench = Bench()
    bench.load(OTHER)
    bench.submit({n: [1] * 100 for n in range(400)})
    bench.submit({n: [1] * 100 for n in range(1000, 1040)}, model=OTHER)
    bench.finish()

    others = [position for position, row_id in enumerate(bench.order()) if row_id >= 1000]
    assert max(others) < 100


def test_a_model_that_is_not_loaded_is_not_found() -> None:
    """Rows for an unknown model are answered at once."""
    bench = Bench()
    bench.submit({1: [7]}, model=OTHER)

    assert {1: "NotFound"} == bench.failures()


def test_what_finds_no_room_is_answered_at_once() -> None:
    """A full queue refuses the rows over its bound and serves the rest."""
    bench = Bench(queue_rows=2)
    bench.submit({1: [1], 2: [2], 3: [3]})

    assert {3: "QueueFull"} == bench.failures()
    bench.finish()
    assert {1: [1.0], 2: [2.0]} == bench.answers()


def test_unloading_fails_what_waits_and_what_is_under_way() -> None:
    """Rows of a model that goes away are told so."""
    bench = Bench()
    bench.submit({1: [1], 2: [1] * 5000})
    while not bench.executor.chunks:
        bench.loop.step()
    bench.replies.clear()
    bench.submit({3: [1]})
    bench.loop.unload(MODEL)

    assert {2: "Unavailable", 3: "Unavailable"} == bench.failures()
    assert set() == bench.executor.loaded
    assert bench.loop.idle


def test_padding_is_counted() -> None:
    """Rounding of shapes and filler rows are padding in the report, for batches and for chunks."""
    bench = Bench()
    bench.submit({1: [1, 1, 1]})
    bench.submit({2: [1] * 300})
    bench.finish()

    first, second = bench.replies
    assert isinstance(first, ResultBlock)
    assert isinstance(second, ResultBlock)
    assert (3, 2 * 4 - 3) == (first.report.useful_steps, first.report.padding_steps)
    computed = sum(rows * steps for rows, steps in bench.executor.chunks) / 2
    assert (300, computed - 300) == (second.report.useful_steps, second.report.padding_steps)


def test_ragged_rows_have_no_padding() -> None:
    """A kernel that computes rows to their own ends gets neither filler nor rounded shapes."""
    bench = Bench(ragged=True)
    bench.submit({1: [1], 2: [1] * 5, 3: [1] * 3})
    bench.submit({4: [1] * 900})
    bench.finish()

    assert {1: [1.0], 2: [5.0], 3: [3.0], 4: [900.0]} == bench.answers()
    assert [0, 0] == [reply.report.padding_steps for reply in bench.replies if isinstance(reply, ResultBlock)]
    assert [5, 3, 1] == bench.executor.batches[-1].lengths.tolist()
    assert {1} == {rows for rows, _ in bench.executor.chunks}


def test_the_cost_table_is_measured_at_load_and_shown() -> None:
    """The table reproduces what executions cost on this device."""
    bench = Bench()
    costs = bench.loop.stats().costs[MODEL]

    for rows, line in zip(costs.rows, costs.seconds, strict=True):
        for steps, seconds in zip(costs.steps, line, strict=True):
            assert 1e-4 + 1e-6 * rows * steps == pytest.approx(seconds)
    assert 1e-6 == pytest.approx(costs.row_step_s)
