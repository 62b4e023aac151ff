"""The backlog is bounded, ordered by urgency, by length where asked, and lets any row go at once."""

from __future__ import annotations

from random import Random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from conveyor.engine.batching.backlog import Backlog, BacklogLimits, Row


def row(row_id: int, *, length: int = 1, due: float = 0.0, deadline: float = float("inf")) -> Row:
    """A row of one column."""
    return Row(due, row_id, length, deadline, 0.0, np.zeros((length, 1), dtype=np.int32))


def backlog(rows: int = 10, steps: int = 100) -> Backlog[str]:
    """An empty one."""
    return Backlog(BacklogLimits(rows=rows, steps=steps))


def test_rows_stand_in_order_of_their_due_times() -> None:
    """The most urgent row of a model is first, whenever it came."""
    waiting = backlog()
    waiting.add("a", [row(1, due=3.0), row(2, due=1.0), row(3, due=2.0)])

    assert [2, 3, 1] == waiting.ids("a")
    assert waiting.queue("b") is None


def test_rows_like_one_come_by_nearness_of_length() -> None:
    """The row itself first, then its neighbours in length on either side."""
    waiting = backlog()
    waiting.add("a", [row(n, length=n) for n in (1, 4, 6, 9, 20)])
    queue = waiting.queue("a")

    assert queue is not None
    found = [found.length for found in queue.like(next(r for r in queue if r.length == 6))]
    assert [6, 4, 9, 1, 20] == found


def test_rows_over_the_bound_are_refused_by_id() -> None:
    """A full backlog names the rows it did not take, whatever model they are for."""
    waiting = backlog(rows=2)

    assert [] == waiting.add("b", [row(9)])
    assert [2, 3] == waiting.add("a", [row(1), row(2), row(3)])


def test_steps_are_bounded_too() -> None:
    """Few long rows fill the backlog as well as many short ones."""
    assert [2] == backlog(steps=10).add("a", [row(1, length=6), row(2, length=6)])


def test_a_row_longer_than_the_bound_is_taken_when_nothing_waits() -> None:
    """No text within the limits of a request is too long to be served at all."""
    assert [] == backlog(steps=10).add("a", [row(1, length=50)])


def test_expired_rows_are_found_by_model() -> None:
    """A row expires at its deadline, not before."""
    waiting = backlog()
    waiting.add("a", [row(1, deadline=5.0), row(2, deadline=6.0)])
    waiting.add("b", [row(3, deadline=5.0)])

    assert {} == waiting.expired(4.9)
    assert {"a": [1], "b": [3]} == waiting.expired(5.0)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 5), st.integers(0, 9), st.booleans()), max_size=60))
def test_counts_and_orders_always_match_what_is_inside(actions: list[tuple[str, int, int, bool]]) -> None:
    """Whatever is added and removed, bounds and orders hold and nothing is lost or kept twice."""
    waiting = backlog(rows=8, steps=20)
    inside: dict[int, tuple[str, int, int]] = {}
    for number, (key, length, due, remove) in enumerate(actions):
        if remove and inside:
            victim = next(iter(inside))
            waiting.remove([victim, -1])
            del inside[victim]
        elif not waiting.add(key, [row(number, length=length, due=due)]):
            inside[number] = (key, length, due)

        assert len(inside) == len(waiting) <= 8
        for name in "ab":
            expected = sorted((due, n) for n, (found, _, due) in inside.items() if found == name)
            assert [n for _, n in expected] == waiting.ids(name)
            queue = waiting.queue(name)
            if queue is not None:
                distances = [abs(r.length - queue.most_urgent().length) for r in queue.like(queue.most_urgent())]
                assert sorted(distances) == distances
                assert len(queue) == len(distances)
        if len(inside) > 1:
            assert sum(length for _, length, _ in inside.values()) <= 20


@given(st.lists(st.tuples(st.integers(1, 40), st.booleans()), max_size=12), st.randoms(use_true_random=False))
def test_orders_hold_when_few_or_many_rows_come_and_go_at_once(actions: list[tuple[int, bool]], chance: Random) -> None:
    """Whether rows are put and found one by one, or the orders are merged and sieved."""
    waiting = backlog(rows=1000, steps=10_000)
    inside: dict[int, Row] = {}
    for number, (size, remove) in enumerate(actions):
        if remove:
            victims = chance.sample(list(inside.values()), min(size, len(inside)))
            if chance.random() < 0.5 and victims:
                waiting.take("a", victims)
            else:
                waiting.remove([victim.id for victim in victims])
            for victim in victims:
                del inside[victim.id]
        else:
            deadlines = [*range(5), float("inf")]
            rows = [
                row(
                    1000 * number + n,
                    length=chance.randrange(6),
                    due=chance.randrange(6),
                    deadline=chance.choice(deadlines),
                )
                for n in range(size)
            ]
            assert [] == waiting.add("a", rows)
            inside.update((added.id, added) for added in rows)

        queue = waiting.queue("a")
        assert len(inside) == len(waiting) == (len(queue) if queue else 0)
        assert [found.id for found in sorted(inside.values())] == waiting.ids("a")
        if queue is not None:
            first = queue.most_urgent()
            # Where nobody asks, rows are not ordered by length.
            if chance.random() < 0.5:
                assert {found.id for found in queue.like(first)} == set(inside)
                longest = first.length + 1
                assert {found.id for found in queue.like(first, longest)} == {
                    found.id for found in inside.values() if found.length <= longest
                }
            expired = {found.id for found in inside.values() if found.deadline <= 2}
            assert expired == {found.id for found in queue.expired(2)} == set(waiting.expired(2).get("a", ()))
