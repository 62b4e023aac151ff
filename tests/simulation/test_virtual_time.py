"""The fake clock keeps asyncio's own promises, and says when nothing is left to happen."""

from __future__ import annotations

import asyncio

import pytest

from conveyor.simulation.virtual_time import Deadlock, VirtualTimeLoop, run


def test_sleeping_takes_no_time_and_moves_the_clock() -> None:
    """Timers fire at their times, in their order."""
    found: list[tuple[str, float]] = []

    async def sleep(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        found.append((name, asyncio.get_running_loop().time()))

    async def main() -> None:
        await asyncio.gather(sleep("b", 7200.0), sleep("a", 3600.0))

    run(main())
    assert ["a", "b"] == [name for name, _ in found]
    assert [3600.0, 7200.0] == pytest.approx([at for _, at in found])


def test_a_stall_makes_timers_late() -> None:
    """What was due while the loop was held up runs right after."""

    async def main() -> float:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        loop.call_later(1.0, loop.stall, 5.0)
        await asyncio.sleep(2.0)
        return loop.time()

    assert 6.0 == pytest.approx(run(main()))


def test_waiting_for_what_never_happens_is_an_error() -> None:
    """A request without an answer ends a simulation instead of hanging it."""

    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(Deadlock):
        run(main())


def test_a_deadline_passes_in_no_time() -> None:
    """Timeouts follow the fake clock."""

    async def main() -> None:
        async with asyncio.timeout(100.0):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        run(main())


def test_a_callback_that_fails_ends_the_run() -> None:
    """An error outside of any task is not just logged."""

    def fail() -> None:
        raise ValueError("broken")

    async def main() -> None:
        asyncio.get_running_loop().call_later(1.0, fail)
        await asyncio.sleep(2.0)

    with pytest.raises(ValueError, match="broken"):
        run(main())
