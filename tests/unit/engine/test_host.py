"""Several front ends before one engine, and several engines before one front end: every row keeps its caller."""

from __future__ import annotations

import asyncio
import math
import random
import socket
import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from pathlib import Path

import numpy as np
import pytest

from conveyor.domain import ModelKey
from conveyor.engine.batching.backlog import BacklogLimits
from conveyor.engine.batching.policy import BatchLimits
from conveyor.engine.host import EngineHost
from conveyor.errors import Internal, NotFound, PackageError, Problem, Unavailable
from conveyor.gateway.call import Call
from conveyor.gateway.dispatcher import Dispatcher
from conveyor.wire.fleet import EngineFleet
from conveyor.wire.messages import BatchReport, ResultBlock, RowBlock, Rows
from conveyor.wire.port import EnginePort, ReplySink
from conveyor.wire.remote import RemoteEngine
from support.engines import HostedEngine
from support.executors import NOT_FINITE, SummingExecutor

pytestmark = pytest.mark.anyio

MODEL = ModelKey("m", "1")
LIMITS = BacklogLimits(rows=10_000, steps=1_000_000), BatchLimits(rows=16, padded_steps=10_000)
WITHIN_S = 60


class Caller:
    """A front end that asks for sums."""

    def __init__(self, engine: EnginePort, observe: Callable[[BatchReport], None] = lambda _: None) -> None:
        self.engine = engine
        self._dispatcher = Dispatcher(engine, observe)

    async def sums(self, *rows: list[int]) -> list[list[float]]:
        """The sum of each row, or the running sums of a stepwise model."""
        arrays = [np.array(row, dtype=np.int32).reshape(-1, 1) for row in rows]
        results = await self._dispatcher.run(Call("tag", "test", "id", math.inf), MODEL, Rows.of(arrays))
        return [result["sum"].tolist() for result in results]


class Held:
    """Stops an executor in the middle of its next batch."""

    def __init__(self, executor: SummingExecutor) -> None:
        self.begun, self._go = threading.Event(), threading.Event()
        self._executor = executor
        executor.before_run = self._stop

    def go(self) -> None:
        """Lets it go on."""
        self._executor.before_run = lambda: None
        self._go.set()

    def _stop(self) -> None:
        self.begun.set()
        self._go.wait(WITHIN_S)


@pytest.fixture
def executor() -> SummingExecutor:
    """Answers each step with the sum up to it."""
    return SummingExecutor(stepwise=True)


@pytest.fixture
def hosted(executor: SummingExecutor) -> Iterator[HostedEngine]:
    """The engine."""
    engine = HostedEngine(executor, *LIMITS)
    yield engine
    engine.stop()


@pytest.fixture
async def callers(hosted: HostedEngine) -> AsyncIterator[list[Caller]]:
    """Three front ends that have loaded the model."""
    found = [Caller(await hosted.front_end()) for _ in range(3)]
    await asyncio.gather(*(caller.engine.load(MODEL, Path("unused")) for caller in found))
    yield found
    await asyncio.gather(*(caller.engine.drain() for caller in found))


async def test_every_front_end_gets_the_answers_to_its_own_rows(callers: list[Caller]) -> None:
    """Ids of different front ends are equal, and batches hold rows of several; no row is mixed up."""
    chance = random.Random(3)

    async def ask(caller: Caller) -> None:
        rows = [[chance.randint(0, 99) for _ in range(chance.randint(1, 40))] for _ in range(chance.randint(1, 20))]
        assert [np.cumsum(row).tolist() for row in rows] == await caller.sums(*rows)

    await asyncio.wait_for(asyncio.gather(*(ask(caller) for caller in callers for _ in range(40))), WITHIN_S)


async def test_a_model_is_loaded_once_and_stays_while_somebody_wants_it(
    callers: list[Caller], executor: SummingExecutor
) -> None:
    """One front end that forgets it takes it from nobody; the last one does."""
    for caller in callers[:2]:
        await caller.engine.unload(MODEL)
        assert {MODEL} == executor.loaded
    assert [[7.0]] == await callers[2].sums([7])
    await callers[2].engine.unload(MODEL)
    assert set() == executor.loaded
    with pytest.raises(NotFound):
        await callers[2].sums([7])


async def test_a_package_that_is_refused_is_refused_to_everybody_who_asks(
    hosted: HostedEngine, executor: SummingExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every problem; and it may be tried again."""
    problem = Problem("weights.safetensors", "", "too short")

    def refuse(key: ModelKey, directory: Path) -> None:
        raise PackageError([problem])

    with monkeypatch.context() as patched:
        patched.setattr(executor, "load", refuse)
        engines = [await hosted.front_end() for _ in range(2)]
        loads = (engine.load(MODEL, Path("unused")) for engine in engines)
        outcomes = await asyncio.gather(*loads, return_exceptions=True)
        assert [(problem,), (problem,)] == [error.problems for error in outcomes if isinstance(error, PackageError)]
    await engines[0].load(MODEL, Path("unused"))
    assert MODEL in (await engines[1].stats()).costs
    await asyncio.gather(*(engine.drain() for engine in engines))


async def test_the_rows_of_a_front_end_that_is_lost_are_not_computed(
    callers: list[Caller], executor: SummingExecutor
) -> None:
    """They go out of the queue as soon as the engine has seen that it is gone; the others' stay."""
    held = Held(executor)
    first = asyncio.ensure_future(callers[0].sums([1]))
    await asyncio.to_thread(held.begun.wait, WITHIN_S)
    leaving = asyncio.ensure_future(callers[1].sums(*[[2]] * 50))
    staying = asyncio.ensure_future(callers[2].sums([3]))
    await asyncio.sleep(0.01)
    executor.batches.clear()
    callers[1].engine.close()  # type: ignore[attr-defined]
    with pytest.raises(Unavailable):
        await leaving
    held.go()

    assert [[1.0]] == await first
    assert [[3.0]] == await staying
    computed = sum((batch.lengths > 0).sum() for batch in executor.batches)
    assert 1 + 1 <= computed < 1 + 1 + 50


async def test_an_engine_that_is_lost_fails_what_waits_for_it(hosted: HostedEngine, executor: SummingExecutor) -> None:
    """Rows and questions end with an error that says to try again; nobody waits for ever."""
    lost = asyncio.Event()
    caller = Caller(await hosted.front_end(lost.set))
    await caller.engine.load(MODEL, Path("unused"))
    held = Held(executor)
    waiting = asyncio.ensure_future(caller.sums([1]))
    await asyncio.to_thread(held.begun.wait, WITHIN_S)
    asking = asyncio.ensure_future(caller.engine.stats())
    await asyncio.sleep(0.01)
    caller.engine.close()  # type: ignore[attr-defined]
    outcomes = await asyncio.wait_for(asyncio.gather(waiting, asking, return_exceptions=True), WITHIN_S)
    held.go()

    assert [Unavailable, Unavailable] == [type(outcome) for outcome in outcomes]
    await asyncio.wait_for(lost.wait(), WITHIN_S)
    await caller.engine.drain()
    with pytest.raises(Unavailable):
        await caller.sums([1])


async def test_a_fleet_shares_rows_out_and_goes_on_without_an_engine_that_is_lost() -> None:
    """Both engines work; one that is lost fails only its own rows; one that comes later has every model first."""
    available: list[bool] = []
    fleet = EngineFleet(available.append)
    caller = Caller(fleet)
    with pytest.raises(Unavailable):
        await caller.sums([1])
    executors = [SummingExecutor(), SummingExecutor(), SummingExecutor()]
    engines = [HostedEngine(executor, *LIMITS) for executor in executors]

    async def attach(engine: HostedEngine) -> None:
        member = await engine.front_end(lambda: fleet.detach(member))
        await fleet.attach(member)

    await attach(engines[0])
    await fleet.load(MODEL, Path("unused"))
    await attach(engines[1])
    for executor in executors:
        executor.batches.clear()
    rows = [[number] for number in range(200)]
    assert [[float(number)] for number in range(200)] == await caller.sums(*rows)
    assert all(executor.batches for executor in executors[:2])
    assert 2 == (await fleet.stats()).engines

    await asyncio.to_thread(engines[0].stop)
    while (await fleet.stats()).engines == 2:  # noqa: ASYNC110  nothing tells of it but this
        await asyncio.sleep(0.001)
    assert [[5.0]] == await caller.sums([5])
    assert [True] == available
    await asyncio.to_thread(engines[1].stop)
    while available[-1]:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    with pytest.raises(Unavailable):
        await caller.sums([6])

    await attach(engines[2])
    assert [True, False, True] == available
    assert {MODEL} == executors[2].loaded
    assert [[7.0]] == await caller.sums([7])
    await fleet.drain()
    engines[2].stop()


class Scripted:
    """An engine that answers when the test says so."""

    def __init__(self) -> None:
        self.blocks: list[RowBlock] = []
        self.arrived = asyncio.Event()

    def connect(self, sink: ReplySink) -> None:
        """Remembers where replies go."""
        self.reply = sink

    def submit(self, block: RowBlock) -> None:
        """Keeps the rows."""
        self.blocks.append(block)
        self.arrived.set()

    def cancel(self, ids: Collection[int]) -> None:
        """Nothing to drop."""

    async def next(self) -> RowBlock:
        """The block that comes next."""
        await self.arrived.wait()
        self.arrived.clear()
        return self.blocks[-1]


async def test_answers_tell_each_front_end_how_much_the_others_have_waiting() -> None:
    """So that what one of them promises its callers counts with the others' rows."""
    scripted = Scripted()
    host = EngineHost(scripted, lambda _: None)  # type: ignore[arg-type]
    reports: list[BatchReport] = []
    engines = []
    for _ in range(2):
        one, another = socket.socketpair()
        host.accept(another)
        engines.append(await RemoteEngine.open(one, lambda: None))
    here, there = Caller(engines[0], reports.append), Caller(engines[1])
    mine = asyncio.ensure_future(here.sums([1]))
    block = await scripted.next()
    theirs = asyncio.ensure_future(there.sums(*[[2]] * 40))
    await scripted.next()
    report = BatchReport(MODEL, np.zeros(1), 0.01, 1, in_chunks=False, useful_steps=1, padding_steps=0)
    sums = {"sum": np.ones(1, dtype=np.float32)}
    ids, lengths = np.array(block.ids), np.ones(1, dtype=np.int32)
    scripted.reply(ResultBlock(ids, lengths, stepwise=False, arrays=sums, report=report))

    assert [[1.0]] == await mine
    assert [40] == [report.rows_elsewhere for report in reports]
    theirs.cancel()
    await asyncio.wait([theirs])
    await asyncio.gather(*(engine.drain() for engine in engines))
    await host.close()


async def test_a_row_without_a_finite_result_fails_alone_and_the_engine_goes_on(callers: list[Caller]) -> None:
    """Also where it was the only row of its batch."""
    for _ in range(2):
        with pytest.raises(Internal):
            await callers[0].sums([NOT_FINITE])
        assert [[3.0]] == await callers[1].sums([3])
