"""The lifetime of a request: what ends it, and that nothing else is taken for its end."""

from __future__ import annotations

import asyncio
import time

import pytest

from conveyor.api.deadline import Lifetime
from conveyor.errors import Cancelled, DeadlineExceeded, Unavailable

pytestmark = pytest.mark.anyio

# Far enough that no test gets there.
LATER_S = 3600.0


async def _wait_in(lifetime: Lifetime) -> None:
    async with asyncio.timeout(60):
        with lifetime:
            await asyncio.Event().wait()


async def test_a_deadline_ends_the_block() -> None:
    """What waits is cancelled, and the deadline is the reason; so is one that had passed before."""
    for seconds in (0.01, -1.0):
        with pytest.raises(DeadlineExceeded):
            await _wait_in(Lifetime(time.monotonic() + seconds))


async def test_whoever_holds_it_can_end_it_for_a_reason() -> None:
    """The first reason counts, and afterwards the task is as if nobody had cancelled it."""
    lifetime = Lifetime(time.monotonic() + LATER_S)
    loop = asyncio.get_running_loop()
    loop.call_soon(lifetime.end, Cancelled("left"))
    loop.call_soon(lifetime.end, Unavailable("stopped"))
    with pytest.raises(Cancelled, match="left"):
        await _wait_in(lifetime)

    task = asyncio.current_task()
    assert task is not None
    assert 0 == task.cancelling()
    await asyncio.sleep(0)


async def test_after_the_block_nothing_happens() -> None:
    """A client that leaves once it has its answer cancels nothing."""
    with Lifetime(time.monotonic() + LATER_S) as lifetime:
        await asyncio.sleep(0)
    lifetime.end(Cancelled("left"))
    await asyncio.sleep(0)


async def test_the_blocks_own_error_goes_on() -> None:
    """An error that is no cancellation is raised as it is, even where the block was being ended."""
    lifetime = Lifetime(time.monotonic() + LATER_S)

    async def fail_when_cancelled() -> None:
        with lifetime:
            try:
                await asyncio.Event().wait()
            finally:
                raise ValueError("mine")

    asyncio.get_running_loop().call_soon(lifetime.end, Cancelled("left"))
    with pytest.raises(ValueError, match="mine"):
        await fail_when_cancelled()


async def test_somebody_elses_cancellation_goes_on() -> None:
    """The server cancels a request at the end of its grace: that is neither its deadline nor its client."""
    begun = asyncio.Event()
    lifetimes: list[Lifetime] = []

    async def work() -> None:
        with Lifetime(time.monotonic() + LATER_S) as lifetime:
            lifetimes.append(lifetime)
            begun.set()
            await asyncio.Event().wait()

    for ends_as_well in (False, True):
        begun.clear()
        task = asyncio.create_task(work())
        await begun.wait()
        task.cancel()
        if ends_as_well:
            lifetimes[-1].end(Cancelled("left"))
        with pytest.raises(asyncio.CancelledError):
            await task
