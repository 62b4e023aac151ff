"""What runs when: no row is held up by another's history, and what fails takes nobody with it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from conveyor.domain import ModelKey
from conveyor.engine.batching.costs import uniform_costs
from conveyor.engine.batching.shapes import STEP_BUCKETS
from conveyor.engine.executors.port import OutOfDeviceMemory, StepOutcome
from conveyor.engine.sessions.options import SessionOptions
from conveyor.engine.sessions.policy import choose_chunk, rows_computed
from conveyor.spec import SeriesSpec
from conveyor.wire.messages import RowBlock
from conveyor.wire.sessions import SessionCall
from support.executors import FakeClock, SummingExecutor
from support.sessions import Ask, SessionEngine, key

MODEL = ModelKey("m", "1")
CALL_S, STEP_S = 1e-4, 1e-6


@given(st.integers(1, 5000))
def test_few_sizes_of_executions_waste_an_eighth_at_most(rows: int) -> None:
    """Beyond the smallest; and all of them are few."""
    computed = rows_computed(rows)
    assert rows <= computed <= max(rows * 9 / 8, rows + 16)
    assert computed == rows_computed(computed)


def test_sizes_are_few() -> None:
    """Each costs the library a set-up and memory."""
    assert len({rows_computed(rows) for rows in range(1, 4097)}) < 64


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=16), st.integers(1, 256), st.floats(1e-6, 1.0))
def test_a_chunk_has_only_steps_that_were_asked_for(remaining: Sequence[int], fitting: int, slice_s: float) -> None:
    """The most urgent row goes on, with all others that have as many steps left; no more than fit."""
    costs = uniform_costs(row_step_s=STEP_S, call_s=CALL_S)
    steps, chosen = choose_chunk(remaining, fitting, costs, slice_s)
    assert steps in STEP_BUCKETS
    assert steps <= max(fitting, 1)
    assert chosen[0] == 0
    assert list(chosen) == [position for position, left in enumerate(remaining) if left >= steps]


class SummingStates:
    """States that are the sum of the inputs so far."""

    series = SeriesSpec(features=("y",), targets=("y",), frequency="h", half_life_steps=10)
    forecast_shape = (1, 1, 2)
    width = 1

    def __init__(self, executor: SteppingExecutor) -> None:
        self._executor = executor
        self._sums = np.zeros((0, 1), dtype=np.float32)

    def add_slab(self, slots: int) -> None:
        """More zeros."""
        self._sums = np.concatenate([self._sums, np.full((min(slots, 4096), 1), np.nan, dtype=np.float32)])

    def step(
        self, slots: npt.NDArray[np.int32], inputs: npt.NDArray[np.float32], wanted: npt.NDArray[np.bool_]
    ) -> StepOutcome:
        """Adds up presence flags, of which every observation has one."""
        assert len(set(slots.tolist())) == len(slots)
        executor, steps = self._executor, inputs.shape[1]
        executor.clock.now += CALL_S + STEP_S * len(inputs) * steps
        executor.steps.append((len(slots), steps))
        if len(slots) * max(steps, 1) > executor.room:
            raise OutOfDeviceMemory("no room")
        if executor.poison & set(slots.tolist()):
            raise RuntimeError("boom")
        after = self._sums[slots] + inputs[: len(slots), :, 1:2].sum(axis=1)
        finite = ~np.isin(slots, list(executor.not_finite))
        self._sums[slots[finite]] = after[finite]
        forecasts = np.repeat(after[wanted & finite], 2, axis=1).reshape(-1, 1, 1, 2)
        return StepOutcome(finite, forecasts)

    def read(self, slots: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        """Copies."""
        return self._sums[slots]

    def write(self, slots: npt.NDArray[np.int32], states: npt.NDArray[np.float32]) -> None:
        """Puts them in."""
        self._sums[slots] = states


class SteppingExecutor(SummingExecutor):
    """Has sessions too. steps: (rows, steps) of each execution. poison, not_finite: slots that fail."""

    def __init__(self) -> None:
        super().__init__(clock=FakeClock())
        self.clock: FakeClock
        self.steps: list[tuple[int, int]] = []
        self.poison: set[int] = set()
        self.not_finite: set[int] = set()

    def session_states(self, key: ModelKey) -> SummingStates:
        """New ones."""
        return SummingStates(self)


def _engine(**options: object) -> tuple[SessionEngine, SteppingExecutor]:
    executor = SteppingExecutor()
    engine = SessionEngine(executor, MODEL, SessionOptions(**options), executor.clock)  # type: ignore[arg-type]
    engine.loop.load(MODEL, None)  # type: ignore[arg-type]
    executor.steps.clear()
    return engine, executor


def _opened(count: int, **options: object) -> tuple[SessionEngine, SteppingExecutor]:
    engine, executor = _engine(**options)
    engine.now(*(Ask(number, key(number), np.ones((1, 1)), opens=True) for number in range(count)))
    executor.steps.clear()
    return engine, executor


def test_steps_of_any_sessions_are_one_execution() -> None:
    """Whatever steps they stand at; up to the bound."""
    engine, executor = _opened(40, step_rows=32)
    engine.now(*(Ask(100 + number, key(number), np.ones((1, 1))) for number in range(40)))
    assert [(32, 1), (8, 1)] == executor.steps


def test_a_long_history_does_not_hold_up_others() -> None:
    """Each single step waits for one chunk at most, and the history gets half of the time."""
    engine, executor = _opened(2, slice_s=0.001)
    engine.ask(Ask(10, key(0), np.ones((100_000, 1))))
    waits = []
    for turn in range(200):
        asked = executor.clock.now
        engine.ask(Ask(100 + turn, key(1), np.ones((1, 1))))
        while 100 + turn not in engine.answers:
            engine.loop.step()
        waits.append(executor.clock.now - asked)
    assert max(waits) < 0.0025
    chunks = [steps for _, steps in executor.steps if steps > 1]
    assert sum(chunks) > 1000
    engine.run()
    assert (100_001, 201) == (engine.answers[10].steps, engine.answers[299].steps)


def test_a_long_history_does_not_hold_up_appends_of_a_few_steps() -> None:
    """They lead in turn."""
    engine, executor = _opened(2, slice_s=0.001)
    engine.ask(Ask(10, key(0), np.ones((100_000, 1))))
    engine.run(3)
    asked = executor.clock.now
    engine.ask(Ask(11, key(1), np.ones((3, 1))))
    while 11 not in engine.answers:
        engine.loop.step()
    assert executor.clock.now - asked < 0.005
    assert 10 not in engine.answers


def test_a_session_at_fault_fails_alone_and_stays_as_it_was() -> None:
    """In an execution of many, and in the middle of a long append."""
    engine, executor = _opened(20, slice_s=0.0002)
    executor.poison = {7}
    found = engine.now(*(Ask(100 + number, key(number), np.ones((1, 1)), forecast=True) for number in range(20)))
    assert [7] == [number for number, answer in enumerate(found) if answer.error == "Internal"]
    executor.poison = set()
    long = [Ask(200 + number, key(number), np.ones((300, 1)), forecast=True) for number in range(6, 9)]
    engine.ask(*long)
    engine.run(3)
    executor.poison = {7}
    engine.run()
    assert ["", "Internal", ""] == [engine.answers[ask.id].error for ask in long]
    executor.poison = set()
    after = engine.now(*(Ask(300 + number, key(number), np.empty((0, 1)), forecast=True) for number in range(6, 9)))
    assert [302, 1, 302] == [answer.steps for answer in after]
    assert [302.0, 1.0, 302.0] == [answer.forecast.item(0) for answer in after]  # type: ignore[union-attr]


def test_a_result_that_is_not_finite_fails_alone_and_is_not_kept() -> None:
    """And an opening that comes to it leaves no session."""
    engine, executor = _opened(3)
    executor.not_finite = {1, 3}
    asks = [Ask(100 + number, key(number), np.ones((1, 1)), forecast=True) for number in range(3)]
    asks.append(Ask(103, key(3), np.ones((1, 1)), opens=True))
    assert ["", "Internal", "", "Internal"] == [answer.error for answer in engine.now(*asks)]
    executor.not_finite = set()
    steps = [answer.steps for answer in engine.now(*(Ask(200 + n, key(n), np.empty((0, 1))) for n in range(3)))]
    assert [2, 1, 2] == steps
    assert 3 == engine.loop.stats().sessions[MODEL].live


def test_when_memory_runs_out_executions_become_smaller() -> None:
    """Nothing is lost, and nothing runs twice."""
    engine, executor = _opened(40, slice_s=0.01)
    executor.room = 6
    asks = [Ask(100 + number, key(number), np.ones((1 + number % 3 * 20, 1)), forecast=True) for number in range(40)]
    for ask, answer in zip(asks, engine.now(*asks), strict=True):
        assert not answer.error
        assert (1 + len(ask.values), 1.0 + len(ask.values)) == (answer.steps, answer.forecast.item(0))  # type: ignore[union-attr]


def test_rows_and_sessions_of_a_model_take_turns() -> None:
    """Neither waits until the other has nothing left."""
    engine, executor = _opened(1, slice_s=0.001)
    order: list[str] = []
    executor.before_run = lambda: order.append("rows")
    engine.ask(Ask(10, key(0), np.ones((5000, 1))))
    for first in range(0, 300, 3):
        ids = list(range(1000 + first, 1003 + first))
        inputs = np.ones((600, 1), dtype=np.int32)
        engine.loop.submit(RowBlock(MODEL, ids, [np.inf] * 3, [1] * 3, ids, [200] * 3, inputs))
    while not engine.loop.idle:
        before = len(executor.steps)
        engine.loop.step()
        order += ["sessions"] * (len(executor.steps) - before)
    assert order.index("rows") < 5
    assert order.index("sessions") < 5
    assert "sessions" in order[len(order) // 4 :]


def test_a_call_sees_what_was_applied_and_no_more() -> None:
    """While an append is under way, the session is what it was before."""
    engine, _ = _opened(1, slice_s=0.0002)
    engine.ask(Ask(10, key(0), np.ones((3000, 1))))
    engine.run(4)
    assert 1 == engine.loop.session(SessionCall("tell", MODEL, key(0))).steps
    engine.run()
    assert 3001 == engine.loop.session(SessionCall("tell", MODEL, key(0))).steps
