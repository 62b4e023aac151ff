"""Whatever clients, network and device do, every accepted request ends once, in the right answer or for a reason."""

from __future__ import annotations

import pytest

from support.schedules import play_many

SCHEDULES = 4000
PARTS = 8
OUTCOMES = {"answered", "cancelled", "DeadlineExceeded", "Internal", "NotFound", "QueueFull", "Unavailable"}
# The least part of the schedules in which each thing has to come about: about half of what it is.
SHARES = {
    "request answered": 0.7,
    "request cancelled": 0.12,
    "request DeadlineExceeded": 0.14,
    "request Internal": 0.1,
    "request QueueFull": 0.03,
    "request Unavailable": 0.03,
    "request NotFound": 0.002,
    "deadline": 0.25,
    "priority 0": 0.25,
    "priority 2": 0.25,
    "two models": 0.15,
    "five requests": 0.07,
    "long row": 0.15,
    "long rows together": 0.03,
    "front end held up": 0.12,
    "messages overtake each other": 0.15,
    "engine lost": 0.03,
    "engine drained": 0.04,
    "model unloaded": 0.04,
    "slow device": 0.02,
    "execution failed": 0.04,
    "row at fault": 0.03,
    "result not finite": 0.03,
    "out of memory for a batch": 0.02,
    "out of memory for a chunk": 0.03,
    "out of memory for another long row": 0.005,
    "out of memory beside another long row": 0.005,
}


@pytest.mark.parametrize("part", range(PARTS))
def test_every_request_ends_once_and_right(part: int) -> None:
    """Lost engines, slow clients and devices, cancellations, deadlines, failing rows, full queues and too little
    memory leave nothing behind; and each of them comes about often enough to say so."""
    size = SCHEDULES // PARTS
    played = play_many(range(part * size, (part + 1) * size))

    # A schedule in which everything is refused would prove little.
    assert OUTCOMES >= set(played.outcomes)
    assert played.outcomes["answered"] > played.outcomes.total() / 3
    assert SHARES.keys() == set(played.happened)
    rare = {what: played.share(what) for what, least in SHARES.items() if played.share(what) < least / 2}
    assert rare == {}


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_every_request_ends_once_and_right_in_many_more_schedules(part: int) -> None:
    """As above, with seeds that the short suite does not play."""
    size = 20_000
    first = SCHEDULES + part * size
    played = play_many(range(first, first + size))

    assert set(played.outcomes) == OUTCOMES
    assert {} == {what: played.share(what) for what, least in SHARES.items() if played.share(what) < least}


def test_a_schedule_is_its_seed() -> None:
    """Played again, a seed gives the same, so a failure can be looked at."""
    first, second = play_many(range(100, 200)), play_many(range(100, 200))

    assert first.outcomes == second.outcomes
    assert first.happened == second.happened
