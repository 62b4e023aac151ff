"""Every caller gets its own answer, once, whatever the others do."""

from __future__ import annotations

import asyncio
import math
import random
import threading
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from conveyor.domain import ModelKey
from conveyor.engine.batching.backlog import BacklogLimits
from conveyor.engine.batching.policy import BatchLimits
from conveyor.engine.executors.port import Batch, BatchResult
from conveyor.engine.local import LocalEngine
from conveyor.errors import DeadlineExceeded, Internal, Unavailable
from conveyor.gateway.call import Call
from conveyor.gateway.dispatcher import Dispatcher
from conveyor.wire.messages import BatchReport, RowBlock, Rows
from conveyor.wire.port import EnginePort
from support.engines import HostedEngine
from support.executors import FAILS, SummingExecutor

pytestmark = pytest.mark.anyio

MODEL = ModelKey("m", "1")
LIMITS = BacklogLimits(rows=10_000, steps=1_000_000), BatchLimits(rows=16, padded_steps=10_000)


class DearCalls(SummingExecutor):
    """Takes so long for each call, whatever its size, that one batch is cheaper than two also on a busy machine."""

    def run(self, key: ModelKey, batch: Batch) -> BatchResult:
        """Sums, after a moment."""
        time.sleep(0.01)
        return super().run(key, batch)


class Gate:
    """Holds the device in the middle of an execution until it is opened."""

    def __init__(self, executor: SummingExecutor) -> None:
        self._executor = executor
        self._held = threading.Event()
        self._open = threading.Event()

    async def hold(self, work: Coroutine[object, object, object]) -> asyncio.Task[object]:
        """Starts a request and returns once the device is at work on it."""
        self._executor.before_run = self._stop
        task = asyncio.ensure_future(work)
        await asyncio.to_thread(self._held.wait)
        self._executor.batches.clear()
        return task

    def open(self) -> None:
        """Lets the device go on, now and from now on."""
        self._executor.before_run = lambda: None
        self._open.set()

    def _stop(self) -> None:
        self._held.set()
        self._open.wait(30)


class Served:
    """A dispatcher before a running engine."""

    def __init__(self, executor: SummingExecutor, engine: EnginePort, num_engines: int = 1) -> None:
        self.executor = executor
        self.engine = engine
        self.reports: list[BatchReport] = []
        self.rows_sent = 0
        self._more_sent = asyncio.Event()
        self._submit = engine.submit
        engine.submit = self._count_and_submit
        self.dispatcher = Dispatcher(engine, self.reports.append, num_engines=num_engines)

    def _count_and_submit(self, block: RowBlock) -> None:
        self.rows_sent += len(block.ids)
        self._more_sent.set()
        self._submit(block)

    async def until_sent(self, rows: int) -> None:
        """Returns once so many rows have left the front end."""
        while self.rows_sent < rows:
            self._more_sent.clear()
            await self._more_sent.wait()

    async def with_two_blocks(self) -> tuple[Gate, list[asyncio.Future[object]]]:
        """Stops the device with a block inside and one behind it. Returns what lets it go on, and their answers."""
        gate = Gate(self.executor)
        first = await gate.hold(self.sums([1]))
        second = asyncio.ensure_future(self.sums([2]))
        await asyncio.wait_for(self.until_sent(2), timeout=10)
        return gate, [first, second]

    async def sums(self, *rows: list[int], deadline: float = math.inf) -> list[float]:
        """The sum of each row."""
        call = Call("sentiment", "test", "id", deadline)
        arrays = [np.array(row, dtype=np.int32).reshape(-1, 1) for row in rows]
        results = await self.dispatcher.run(call, MODEL, Rows.of(arrays))
        return [float(result["sum"][0]) for result in results]


@pytest.fixture(params=["on a thread", "behind a socket"])
def form(request: pytest.FixtureRequest) -> str:
    """Where the engine is: nobody before it can tell."""
    return str(request.param)


@asynccontextmanager
async def served(form: str, num_engines: int = 1) -> AsyncIterator[Served]:
    """A dispatcher before an engine that has the model. num_engines: that it is told of."""
    executor = DearCalls()
    if form == "on a thread":
        bench = Served(executor, LocalEngine(lambda: executor, *LIMITS, lambda _: None), num_engines)
        hosted = None
    else:
        hosted = HostedEngine(executor, *LIMITS)
        bench = Served(executor, await hosted.front_end(), num_engines)
    await bench.engine.load(MODEL, Path("unused"))
    executor.batches.clear()
    yield bench
    await bench.engine.drain()
    if hosted:
        hosted.stop()


async def test_results_come_in_the_order_of_the_rows(form: str) -> None:
    """A request that is split over several batches is put together again."""
    async with served(form) as bench:
        rows = [[i, i] for i in range(100)]
        assert [2.0 * i for i in range(100)] == await bench.sums(*rows)


async def test_rows_of_one_tick_share_a_batch(form: str) -> None:
    """Requests that arrive together are computed together."""
    async with served(form) as bench:
        await asyncio.gather(*(bench.sums([i]) for i in range(8)))

        assert [8] == [report.rows for report in bench.reports]


async def test_rows_that_arrive_while_the_device_is_busy_share_the_next_batch(form: str) -> None:
    """There is no fill delay: an idle device starts at once, and what comes meanwhile goes together."""
    async with served(form) as bench:
        gate = Gate(bench.executor)
        first = await gate.hold(bench.sums([1]))
        sent = bench.rows_sent
        others = []
        for i in range(5):
            others.append(asyncio.ensure_future(bench.sums([i])))
            await asyncio.sleep(0)
        # The last row may be held back for a moment: only then is it in the engine's inbox.
        await bench.until_sent(sent + 5)
        gate.open()
        await asyncio.gather(first, *others)

        assert [1, 5] == [report.rows for report in bench.reports]


async def test_every_request_gets_exactly_one_answer_under_random_cancellation(form: str) -> None:
    """With 200 concurrent requests of mixed size, some cancelled and some late, all others get their own sums."""
    chance = random.Random(7)

    async def one(number: int) -> str:
        rows = [[number] * chance.randint(1, 400) for _ in range(chance.randint(1, 5))]
        deadline = time.monotonic() if number % 7 == 0 else math.inf
        work = asyncio.ensure_future(bench.sums(*rows, deadline=deadline))
        if number % 3 == 0:
            await asyncio.sleep(chance.random() * 0.05)
            work.cancel()
        try:
            assert [float(sum(row)) for row in rows] == await work
        except asyncio.CancelledError:
            return "cancelled"
        except DeadlineExceeded:
            return "late"
        return "answered"

    async with served(form) as bench:
        outcomes = await asyncio.wait_for(asyncio.gather(*(one(number) for number in range(200))), timeout=60)

        assert 200 == len(outcomes)
        assert all(outcomes[n] == "answered" for n in range(200) if n % 3 and n % 7)
        assert all(outcomes[n] == "late" for n in range(200) if n % 3 and n % 7 == 0)
        stats = await bench.engine.stats()
        assert 0 == stats.queued_rows[MODEL]


async def test_a_late_request_is_answered_at_its_deadline_and_never_runs(form: str) -> None:
    """A caller whose deadline passes while the device is busy is told then, and its rows are not computed."""
    async with served(form) as bench:
        gate = Gate(bench.executor)
        busy = await gate.hold(bench.sums([1]))
        with pytest.raises(DeadlineExceeded):
            await bench.sums([2], deadline=time.monotonic() + 0.01)
        gate.open()

        assert [1.0] == await busy
        assert 1 == len(bench.executor.batches)


async def test_a_caller_that_leaves_is_not_computed(form: str) -> None:
    """Its rows go out of the queue while the device is busy with others'."""
    async with served(form) as bench:
        gate = Gate(bench.executor)
        busy = await gate.hold(bench.sums([1]))
        leaving = asyncio.ensure_future(bench.sums([2]))
        await asyncio.sleep(0.01)
        leaving.cancel()
        await asyncio.wait([leaving])
        gate.open()

        assert [1.0] == await busy
        assert 1 == len(bench.executor.batches)


async def test_a_request_cancelled_before_the_tick_ends_is_never_sent(form: str) -> None:
    """What is posted and taken back within a tick does not reach the engine."""
    async with served(form) as bench:
        work = asyncio.ensure_future(bench.sums([1]))
        asyncio.get_running_loop().call_soon(work.cancel)
        with pytest.raises(asyncio.CancelledError):
            await work

        assert [5.0] == await bench.sums([5])
        assert [1] == [report.rows for report in bench.reports]


async def test_one_failing_row_fails_its_request(form: str) -> None:
    """The caller gets the error of the first row that failed."""
    async with served(form) as bench:
        with pytest.raises(Internal):
            await bench.sums([1], [FAILS])


async def test_an_engine_that_dies_fails_its_waiters_and_says_so() -> None:
    """Nobody waits for a thread that is gone, and its owner learns of it."""
    lost = asyncio.Event()
    executor = DearCalls()
    bench = Served(executor, LocalEngine(lambda: executor, *LIMITS, lambda _: lost.set()))
    await bench.engine.load(MODEL, Path("unused"))
    gate = Gate(executor)
    running = await gate.hold(bench.sums([1]))
    waiting = asyncio.ensure_future(bench.sums([2]))
    await asyncio.sleep(0.01)

    def die() -> None:
        raise SystemExit(1)

    executor.before_run = die
    gate._open.set()
    await asyncio.wait_for(lost.wait(), timeout=60)
    outcomes = await asyncio.gather(running, waiting, return_exceptions=True)

    assert [[1.0], Internal] == [outcomes[0], type(outcomes[1])]
    with pytest.raises(Unavailable):
        await bench.sums([3])
    with pytest.raises(Unavailable):
        await bench.engine.stats()


async def test_a_drain_answers_what_was_accepted_and_refuses_what_is_new(form: str) -> None:
    """Stopping loses nothing that was taken in."""
    async with served(form) as bench:
        gate = Gate(bench.executor)
        accepted = await gate.hold(bench.sums(*[[i] for i in range(40)]))
        draining = asyncio.ensure_future(bench.engine.drain())
        await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            await bench.sums([1])
        gate.open()

        assert [float(i) for i in range(40)] == await accepted
        await draining


async def test_rows_wait_for_company_only_while_the_engine_has_others(form: str) -> None:
    """What comes to an engine that is busy leaves in few blocks."""
    async with served(form) as bench:
        gate = Gate(bench.executor)
        first = await gate.hold(bench.sums([1]))
        sizes: list[int] = []
        submit = bench.engine.submit
        bench.engine.submit = lambda block: (sizes.append(len(block.ids)), submit(block))
        others = []
        for i in range(50):
            others.append(asyncio.ensure_future(bench.sums([i])))
            await asyncio.sleep(0)
        gate.open()
        await asyncio.gather(first, *others)

        assert 50 == sum(sizes)
        assert len(sizes) < 25


async def test_a_request_of_many_rows_is_company_enough(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It leaves at once, and takes what is held back with it."""
    monkeypatch.setattr("conveyor.gateway.dispatcher._GATHER_S", 600.0)
    async with served(form) as bench:
        gate = Gate(bench.executor)
        first = await gate.hold(bench.sums([1]))
        held = asyncio.ensure_future(bench.sums([2]))
        await asyncio.sleep(0)
        assert 1 == bench.rows_sent
        many = asyncio.ensure_future(bench.sums(*[[3]] * 32))
        await asyncio.wait_for(bench.until_sent(34), timeout=10)
        gate.open()
        await asyncio.gather(first, held, many)


async def test_requests_are_read_at_once_by_an_idle_engine_and_else_with_an_answer(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who gathers requests is told to read them in the same tick if there is nothing to wait for, and when the engine
    may have become idle, however long it could have waited for company."""
    monkeypatch.setattr("conveyor.gateway.dispatcher._GATHER_S", 600.0)
    async with served(form) as bench:
        read = asyncio.Event()
        bench.dispatcher.gather(read.set)
        await asyncio.sleep(0)
        assert read.is_set()

        gate = Gate(bench.executor)
        first = await gate.hold(bench.sums([1]))
        read.clear()
        bench.dispatcher.gather(read.set)
        await asyncio.sleep(0.01)
        assert not read.is_set()
        gate.open()
        await asyncio.wait_for(read.wait(), timeout=60)
        await first


async def test_rows_do_not_wait_for_requests_that_are_gathered_longer(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the engine has two blocks, requests may wait to be read for longer than rows wait to be sent: rows that
    come meanwhile leave in their own time, and take those requests along."""
    monkeypatch.setattr("conveyor.gateway.dispatcher._GATHER_BEHIND_S", 600.0)
    async with served(form) as bench:
        gate, others = await bench.with_two_blocks()
        read = asyncio.Event()
        bench.dispatcher.gather(read.set)
        await asyncio.sleep(0.02)
        assert not read.is_set()
        third = asyncio.ensure_future(bench.sums([3]))
        await asyncio.wait_for(bench.until_sent(3), timeout=10)
        assert read.is_set()
        gate.open()
        await asyncio.gather(*others, third)


async def test_requests_are_gathered_no_longer_than_rows_while_an_engine_may_be_idle(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two blocks are nothing that waits where there are two engines."""
    monkeypatch.setattr("conveyor.gateway.dispatcher._GATHER_BEHIND_S", 600.0)
    async with served(form, num_engines=2) as bench:
        gate, others = await bench.with_two_blocks()
        read = asyncio.Event()
        bench.dispatcher.gather(read.set)
        await asyncio.wait_for(read.wait(), timeout=10)
        gate.open()
        await asyncio.gather(*others)


async def test_what_readers_post_needs_no_moment_of_its_own(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It leaves with the rows for which they were told to read: what is gathered next waits its own time."""
    async with served(form) as bench:
        gate, others = await bench.with_two_blocks()
        read, read_next = asyncio.Event(), asyncio.Event()

        def post() -> None:
            call = Call("sentiment", "test", "id", math.inf)
            rows = Rows.of([np.array([[3]], dtype=np.int32)])
            over = asyncio.get_running_loop().create_future()
            bench.dispatcher.post(call, MODEL, rows, lambda: over.set_result(None))
            others.append(over)
            # In the way of a second sending, if there were one.
            monkeypatch.setattr("conveyor.gateway.dispatcher._GATHER_BEHIND_S", 600.0)
            asyncio.get_running_loop().call_soon(bench.dispatcher.gather, read_next.set)
            read.set()

        bench.dispatcher.gather(post)
        await asyncio.wait_for(read.wait(), timeout=10)
        await asyncio.sleep(0.02)
        assert bench.rows_sent == 3
        assert not read_next.is_set()
        gate.open()
        await asyncio.gather(*others)


async def test_rows_that_are_held_back_leave_with_an_answer(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that may have become idle is sent what there is, however long it could have waited for company."""
    monkeypatch.setattr("conveyor.gateway.dispatcher._GATHER_S", 600.0)
    async with served(form) as bench:
        gate = Gate(bench.executor)
        first = await gate.hold(bench.sums([1]))
        sent = bench.rows_sent
        held = [asyncio.ensure_future(bench.sums([i])) for i in range(5)]
        await asyncio.sleep(0.01)
        assert sent == bench.rows_sent
        gate.open()

        async with asyncio.timeout(60):
            assert [[1.0], *([float(i)] for i in range(5))] == await asyncio.gather(first, *held)
        assert [1, 5] == [report.rows for report in bench.reports]
