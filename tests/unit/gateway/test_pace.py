"""What is translated on the event loop is reckoned by the pace of what was translated before."""

from __future__ import annotations

import pytest

from conveyor.gateway.pace import Pace


def test_a_pace_comes_to_what_work_takes() -> None:
    """After some tens of pieces of work, whatever was believed before."""
    pace = Pace(1e-6)
    for _ in range(60):
        pace.learn(1000, 5e-3)
    assert 5e-3 == pytest.approx(pace.seconds(1000), rel=0.05)


def test_one_piece_of_work_that_was_held_up_moves_little() -> None:
    """However long it took."""
    pace = Pace(1e-6)
    pace.learn(1000, 10.0)
    assert pace.seconds(1000) < 1.5e-3


def test_a_pace_is_never_nothing() -> None:
    """A clock that did not move says that work is quick, not that any amount of it takes no time."""
    pace = Pace(1e-6)
    for _ in range(10):
        pace.learn(1000, 0.0)
    assert pace.seconds(1000) > 0


def test_work_is_done_once_and_what_it_raises_is_not_learned_from() -> None:
    """The result is that of the work."""
    pace, done = Pace(1e-6), []
    assert "x" == pace.take(1000, lambda: done.append(1) or "x")
    before = pace.seconds(1000)
    with pytest.raises(ZeroDivisionError):
        pace.take(1000, lambda: 1 // 0)
    assert ([1], before) == (done, pace.seconds(1000))
