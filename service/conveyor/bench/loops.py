"""The two ways to put load on a server.

Both return once every request they sent has ended or was given up, and both stop early on an interruption.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Sequence, Set
from typing import Any

import numpy as np
import numpy.typing as npt

from conveyor.bench.client import CLIENT_PREFIX, Answer, Client
from conveyor.bench.tally import OVERFLOW, UNFINISHED, Tally

__all__ = ["Interruption", "drive_closed", "drive_open"]

# How long answers are waited for after the last request left: the user's patience, and then less of it.
_DRAIN_S = 30.0
_INTERRUPTED_DRAIN_S = 2.0
# The pacing thread gets this much to start.
_LEAD_S = 0.05
# A worker that cannot connect would otherwise try again thousands of times a second.
_PAUSE_S = 0.1


class Interruption:
    """A wish to stop, which a thread and an event loop can both wait for. Set from the event loop."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._thread_event = threading.Event()

    def set(self) -> None:
        """Asks for the stop."""
        self._thread_event.set()
        self._event.set()

    def is_set(self) -> bool:
        """Whether it was asked for."""
        return self._thread_event.is_set()

    async def wait(self) -> None:
        """Waits on the event loop."""
        await self._event.wait()

    def wait_in_thread(self, timeout_s: float) -> bool:
        """Waits in a thread; returns whether the stop was asked for."""
        return self._thread_event.wait(timeout_s)


async def drive_open(
    client: Client,
    payloads: Sequence[bytes],
    arrivals_s: npt.NDArray[np.float64],
    max_in_flight: int,
    tally: Tally,
    interruption: Interruption,
) -> None:
    """Sends a request at each arrival, whatever became of those before it.

    Latency counts from the arrival, so a request that leaves late, because this process was busy, is not made to look
    fast. An arrival that finds `max_in_flight` requests waiting is not sent and counts as an error of its own code.

    Args:
        arrivals_s: Seconds from now, ascending.
    """
    tasks: set[asyncio.Task[Answer]] = set()
    loop = asyncio.get_running_loop()
    start = tally.began = time.monotonic() + _LEAD_S

    def arrive(index: int, arrived: float) -> None:
        if len(tasks) >= max_in_flight:
            tally.ended(OVERFLOW, arrived, time.monotonic())
            return
        task = loop.create_task(_ask(client, payloads[index % len(payloads)], index, arrived, tally))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def pace() -> None:
        # In a thread, because the event loop's timers tick in milliseconds (epoll) and would make every request late.
        for index, arrived in enumerate((start + arrivals_s).tolist()):
            if interruption.wait_in_thread(max(0.0, arrived - time.monotonic())):
                return
            loop.call_soon_threadsafe(arrive, index, arrived)

    await asyncio.to_thread(pace)
    await _drain(tasks, interruption, 0.0)


async def drive_closed(
    client: Client,
    payloads: Sequence[bytes],
    duration_s: float,
    workers: int,
    tally: Tally,
    interruption: Interruption,
) -> None:
    """Lets each worker ask, wait for the answer and ask again until the time is over."""
    indices = itertools.count()
    tally.began = time.monotonic()
    end = tally.began + duration_s

    async def work(lane: int) -> None:
        while (now := time.monotonic()) < end and not interruption.is_set():
            answer = await _ask(client, payloads[next(indices) % len(payloads)], lane, now, tally)
            if answer.code.startswith(CLIENT_PREFIX):
                await asyncio.sleep(_PAUSE_S)

    await _drain({asyncio.create_task(work(lane)) for lane in range(workers)}, interruption, duration_s)


async def _ask(client: Client, payload: bytes, lane: int, arrived: float, tally: Tally) -> Answer:
    tally.sent(time.monotonic() - arrived)
    answer = UNFINISHED
    try:
        answer = await client.ask(payload, lane)
    finally:
        tally.ended(answer, arrived, time.monotonic())
    return answer


async def _drain(tasks: Set[asyncio.Task[Any]], interruption: Interruption, patience_s: float) -> None:
    """Waits for the tasks: as long as they should take and the drain on top, or until shortly after an interruption."""
    if not tasks:
        return
    waiting = tuple(tasks)
    all_ended = asyncio.ensure_future(asyncio.wait(waiting))
    interrupted = asyncio.ensure_future(interruption.wait())
    await asyncio.wait({all_ended, interrupted}, timeout=patience_s + _DRAIN_S, return_when=asyncio.FIRST_COMPLETED)
    if interruption.is_set():
        await asyncio.wait({all_ended}, timeout=_INTERRUPTED_DRAIN_S)
    for task in (*waiting, interrupted, all_ended):
        task.cancel()
    for ended in await asyncio.gather(*waiting, return_exceptions=True):
        # A fault of this program, which must not pass for one of the server.
        if isinstance(ended, Exception):
            raise ended
