"""The loops against a client of their own, without a server."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from conveyor.bench.client import Answer
from conveyor.bench.loops import Interruption, drive_closed, drive_open
from conveyor.bench.tally import Tally

pytestmark = pytest.mark.anyio


class FakeClient:
    """Answers when it is told to."""

    def __init__(self, answer: Answer | None = None) -> None:
        self.gate = asyncio.Event()
        self.answer = answer or Answer("OK")
        self.in_flight = self.most_in_flight = 0
        self.asked: list[bytes] = []
        self.lanes: Counter[int] = Counter()

    async def ask(self, payload: bytes, lane: int) -> Answer:
        """Waits at the gate."""
        self.asked.append(payload)
        self.lanes[lane] += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await self.gate.wait()
        finally:
            self.in_flight -= 1
        return self.answer

    async def close(self) -> None:
        """Nothing to close."""


def when(condition: Callable[[], bool], act: Callable[[], None]) -> asyncio.Task[None]:
    """Acts once the condition holds."""

    async def watch() -> None:
        while not condition():  # noqa: ASYNC110 - the condition is a count, not an event
            await asyncio.sleep(0.001)
        act()

    return asyncio.create_task(watch())


async def test_an_open_loop_does_not_wait_for_answers() -> None:
    """While nothing is answered requests go on leaving; each latency counts from its own arrival."""
    client, tally = FakeClient(), Tally(None)
    arrivals = np.array([0.0, 0.01, 0.02, 0.03])

    gate = when(lambda: len(client.asked) == 4, client.gate.set)
    await drive_open(client, [b"a", b"b"], arrivals, 10, tally, Interruption())
    await gate

    assert [b"a", b"b", b"a", b"b"] == client.asked
    assert (4, 4) == (tally.answered, tally.lags.count)
    # The first was due 30 ms before the last one left, and only then was anything answered.
    assert tally.latencies.max_ms >= 30.0


async def test_an_arrival_over_the_bound_is_counted_and_not_sent() -> None:
    """No arrival disappears: answered, failed or overflown."""
    client, tally = FakeClient(), Tally(None)
    gate = when(lambda: tally.errors.total() == 7, client.gate.set)
    await drive_open(client, [b"a"], np.linspace(0.0, 0.01, 10), 3, tally, Interruption())
    await gate

    assert 3 == client.most_in_flight
    assert (10, 3, {"CLIENT_OVERFLOW": 7}) == (tally.arrivals, tally.answered, dict(tally.errors))


async def test_a_late_arrival_is_told_as_lag_and_is_in_the_latency() -> None:
    """A client that is busy when a request is due does not make the server look faster."""
    client, tally = FakeClient(), Tally(None)
    client.gate.set()
    # Due before the loop began, as if it had slept.
    await drive_open(client, [b"a"], np.array([-0.5]), 3, tally, Interruption())

    assert tally.lags.max_ms >= 400.0
    assert tally.latencies.max_ms >= tally.lags.max_ms * 0.999


async def test_a_closed_loop_keeps_each_worker_at_one_request() -> None:
    """Every worker asks, on its own lane, and none twice at once."""
    client, tally = FakeClient(), Tally(None)
    gate = when(lambda: len(client.asked) == 3, client.gate.set)
    await drive_closed(client, [b"a"], 0.05, 3, tally, Interruption())
    await gate

    assert 3 == client.most_in_flight
    assert {0, 1, 2} == set(client.lanes)
    assert len(client.asked) == tally.answered == tally.arrivals


@pytest.mark.parametrize("loop", ["open", "closed"])
async def test_an_interruption_ends_it_with_what_was_done(loop: str) -> None:
    """No further request leaves, and one without an answer is counted as such."""
    client, tally, interruption = FakeClient(), Tally(None), Interruption()
    stop = when(lambda: len(client.asked) == 2, interruption.set)
    if loop == "open":
        await drive_open(client, [b"a"], np.array([0.0, 0.01, 3000.0]), 5, tally, interruption)
    else:
        await drive_closed(client, [b"a"], 3000.0, 2, tally, interruption)
    await stop

    assert 2 == len(client.asked)
    assert {"CLIENT_UNFINISHED": 2} == dict(tally.errors)


async def test_a_fault_of_the_generator_is_raised() -> None:
    """It must not pass for an error of the server."""

    class Broken(FakeClient):
        async def ask(self, payload: bytes, lane: int) -> Answer:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await drive_closed(Broken(), [b"a"], 0.05, 1, Tally(None), Interruption())


def test_goodput_counts_answers_within_the_deadline() -> None:
    """An answer that is late, or an error that is quick, is not good."""
    tally = Tally(0.1)
    tally.ended(Answer("OK"), 1.0, 1.05)
    tally.ended(Answer("OK"), 1.0, 1.25)
    tally.ended(Answer("RESOURCE_EXHAUSTED", "the queue is full"), 1.0, 1.01)
    tally.ended(Answer("RESOURCE_EXHAUSTED", "another message"), 1.0, 1.01)

    assert (2, 1, 4) == (tally.answered, tally.in_time, tally.arrivals)
    assert {"RESOURCE_EXHAUSTED": 2} == dict(tally.errors)
    assert {"RESOURCE_EXHAUSTED": "the queue is full"} == tally.examples
    assert 2 == tally.latencies.count
