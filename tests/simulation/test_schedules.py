"""Whatever clients, network and device do, every accepted request ends once, in the right answer or for a reason."""

from __future__ import annotations

import pytest

from support.schedules import play_many

SCHEDULES = 2000
PARTS = 8
OUTCOMES = {"answered", "cancelled", "DeadlineExceeded", "Internal", "NotFound", "QueueFull", "Unavailable"}


@pytest.mark.parametrize("part", range(PARTS))
def test_every_request_ends_once_and_right(part: int) -> None:
    """Lost engines, slow clients, cancellations, deadlines, failing rows and full queues leave nothing behind."""
    size = SCHEDULES // PARTS
    outcomes = play_many(range(part * size, (part + 1) * size))

    # A schedule in which everything is refused would prove little.
    assert set(outcomes) == OUTCOMES
    assert outcomes["answered"] > outcomes.total() / 3


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_every_request_ends_once_and_right_in_many_more_schedules(part: int) -> None:
    """As above, with seeds that the short suite does not play."""
    size = 10_000
    first = SCHEDULES + part * size
    outcomes = play_many(range(first, first + size))

    assert set(outcomes) == OUTCOMES
