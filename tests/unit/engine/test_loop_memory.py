"""Memory that runs out makes executions smaller; no row fails that could be run alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from conveyor.domain import ModelKey
from conveyor.engine.executors.port import OutOfDeviceMemory
from support.bench import Bench

OTHER = ModelKey("other", "1")


def test_batches_become_smaller_and_nothing_is_lost() -> None:
    """The budget is halved and the rows tried again; when there is room it grows back."""
    bench = Bench()
    bench.executor.room = 8 * 64
    bench.submit({n: [1] * 100 for n in range(8)})
    bench.finish()
    assert {n: [100.0] for n in range(8)} == bench.answers()
    assert {} == bench.failures()

    bench.executor.room = 10**9
    bench.replies.clear()
    for first in range(100, 1700, 8):
        bench.submit({n: [1] * 100 for n in range(first, first + 8)})
        bench.finish()
    assert 8 == len(bench.executor.batches[-1].lengths)


def test_a_row_that_finds_no_room_whole_is_run_in_chunks() -> None:
    """A batch of one that is too large is divided along its steps."""
    bench = Bench()
    bench.executor.room = 2 * 64
    bench.submit({1: [1] * 200, 2: [2] * 10})
    bench.finish()

    assert {1: [200.0], 2: [20.0]} == bench.answers()
    assert {} == bench.failures()


def test_chunks_become_shorter_and_grow_back() -> None:
    """Long rows go on from where they stood, in chunks that fit; when there is room again, in longer ones."""
    bench = Bench()
    bench.executor.room = 2 * 16
    bench.submit({1: [1] * 2000})
    bench.finish()
    assert {1: [2000.0]} == bench.answers()
    assert 16 >= max(steps for _, steps in bench.executor.chunks)

    bench.executor.room = 10**9
    bench.replies.clear()
    bench.submit({n: [1] * 3000 for n in range(2, 20)})
    bench.finish()
    assert set(range(2, 20)) == set(bench.answers())
    assert 128 <= bench.executor.chunks[-1][1]


def test_chunks_hold_fewer_rows_where_one_step_of_all_finds_no_room() -> None:
    """With room for one step of two rows, four rows are run after all."""
    bench = Bench()
    bench.executor.room = 2
    bench.submit({n: [1] * 300 for n in range(4)})
    bench.finish()

    assert {n: [300.0] for n in range(4)} == bench.answers()
    assert {} == bench.failures()


def test_a_row_that_finds_no_room_to_begin_waits_for_those_under_way() -> None:
    """Memory that is held by other long rows, of any model, comes free when they end."""
    bench = Bench()
    bench.load(OTHER)
    bench.executor.held_room = 700
    bench.submit({1: [1] * 300})
    bench.submit({2: [1] * 400, 3: [1] * 600}, model=OTHER)
    bench.submit({4: [1] * 5})
    bench.finish()

    assert {1: [300.0], 2: [400.0], 3: [600.0], 4: [5.0]} == bench.answers()
    assert {} == bench.failures()


def test_the_least_urgent_row_makes_room_for_one_that_cannot_go_on() -> None:
    """Where not even one step finds room, another long row is put back and begins again later."""
    bench = Bench()
    together: list[int] = []

    def no_room_for_two() -> None:
        together.append(len(bench.executor.held))
        if len(bench.executor.held) > 1:
            raise OutOfDeviceMemory("the rows under way leave nothing")

    bench.executor.before_run = no_room_for_two
    bench.submit({1: [1] * 300, 2: [1] * 400, 3: [1] * 500})
    bench.finish()

    assert 3 == max(together)
    assert {1: [300.0], 2: [400.0], 3: [500.0]} == bench.answers()
    assert {} == bench.failures()
    assert [1, 2, 3] == bench.order()


def test_rows_run_beside_each_other_again_when_there_is_room() -> None:
    """That memory was short once does not keep long rows apart for ever."""
    bench = Bench()
    bench.executor.held_room = 300
    bench.submit({n: [1] * 300 for n in range(4)})
    bench.finish()
    bench.executor.held_room = 10**9
    bench.submit({n: [1] * 300 for n in range(4, 20)})
    most = 0
    while not bench.loop.idle:
        bench.loop.step()
        most = max(most, len(bench.executor.held))

    assert 4 == most
    assert set(range(20)) == set(bench.answers())


def test_rows_that_cannot_be_read_out_beside_others_are_read_out_alone() -> None:
    """Room for the result of a long row is made as for its steps."""
    bench = Bench()

    def no_room_for_two() -> None:
        if len(bench.executor.held) > 1:
            raise OutOfDeviceMemory("no room for a result")

    bench.executor.before_finish = no_room_for_two
    bench.submit({n: [1] * 300 for n in range(3)})
    bench.finish()

    assert {n: [300.0] for n in range(3)} == bench.answers()
    assert {} == bench.failures()


def test_a_row_that_made_room_is_answered_once() -> None:
    """Rows that come to their end together, or fail together, are not gone on with after one has taken their room."""
    bench = Bench()
    fails = iter([True])

    def no_room_once() -> None:
        if next(fails, False):
            raise OutOfDeviceMemory("no room for a result")

    bench.executor.before_finish = no_room_once
    bench.submit({1: [1] * 300, 2: [1] * 300})
    bench.finish()
    assert {1: [300.0], 2: [300.0]} == bench.answers()

    bench = Bench()
    bench.executor.room = 4
    # All four together, the first alone, the second, the third; and none after that.
    attempts = iter([RuntimeError("together"), OutOfDeviceMemory("alone"), None, None, RuntimeError("taken up again")])

    def fail_at_the_last_step() -> None:
        if all(scan.remaining_steps(0) <= 1 for scan in bench.executor.held) and (error := next(attempts, None)):
            raise error

    bench.executor.before_run = fail_at_the_last_step
    bench.submit({n: [1] * 300 for n in range(4)})
    bench.loop.step()
    assert 4 == len(bench.executor.held)
    while len(list(bench.executor.held)) == 4:
        bench.loop.step()
    bench.executor.before_run = lambda: None
    bench.finish()
    assert {n: [300.0] for n in range(4)} == bench.answers()
    assert {} == bench.failures()


def test_a_row_too_large_for_the_device_fails_alone() -> None:
    """What can't go on by a single step although nothing else is under way is told so; the others are answered."""
    bench = Bench()
    bench.executor.held_room = 1000
    bench.submit({1: [1] * 2000, 2: [1] * 300, 3: [1] * 10})
    bench.finish()

    assert {1: "Internal"} == bench.failures()
    assert {2: [300.0], 3: [10.0]} == bench.answers()

    bench = Bench()
    bench.executor.room = 1
    bench.submit({1: [1] * 300, 2: [], 3: [1]})
    bench.finish()
    assert {1: "Internal", 2: "Internal", 3: "Internal"} == bench.failures()


@given(
    st.lists(st.one_of(st.integers(0, 40), st.integers(200, 700)), min_size=1, max_size=12),
    st.integers(2, 1000),
    st.integers(700, 2000),
    st.integers(0, 30),
)
def test_every_row_that_fits_alone_is_answered(lengths: list[int], room: int, held_room: int, later: int) -> None:
    """However little room there is, and if it changes under way, rows are answered right and once."""
    bench = Bench()
    bench.executor.room, bench.executor.held_room = room, held_room
    bench.submit({n: [1] * length for n, length in enumerate(lengths)})
    for _ in range(later):
        bench.loop.step()
    bench.executor.room = 2 + room // 3
    bench.finish()

    assert {n: [float(length)] for n, length in enumerate(lengths)} == bench.answers()
    assert {} == bench.failures()
