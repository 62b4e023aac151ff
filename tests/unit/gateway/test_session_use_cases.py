"""What sessions are given reaches the engine as columns, and each row succeeds or fails by itself."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conveyor.domain import ModelKey
from conveyor.errors import Aborted, DeadlineExceeded, InvalidArgument, NotFound, QueueFull, Unavailable
from conveyor.gateway.call import Call
from conveyor.gateway.gateway import Gateway
from conveyor.gateway.limits import Limits
from conveyor.gateway.observations import Appends, Observations
from conveyor.gateway.session_id import SessionId, split_ids
from conveyor.lifecycle.phase import Lifecycle, Phase
from conveyor.telemetry.metrics import Metrics
from support.session_gateway import MODEL, RememberingEngine, session_gateway

pytestmark = pytest.mark.anyio


@pytest.fixture
def engine() -> RememberingEngine:
    """Empty."""
    return RememberingEngine()


@pytest.fixture
def lifecycle() -> Lifecycle:
    """Ready."""
    lifecycle = Lifecycle()
    lifecycle.set(Phase.READY)
    return lifecycle


@pytest.fixture
async def gateway(engine: RememberingEngine, lifecycle: Lifecycle) -> Gateway:
    """Before the engine, with limits small enough to exceed."""
    return session_gateway(engine, lifecycle, Metrics(), Limits(series_values=5, items=4), queue_rows=4)


def call(deadline: float = math.inf) -> Call:
    """A request."""
    return Call("forecast", "test", "id", deadline)


def plain(*values: float) -> Observations:
    """One feature."""
    return Observations(np.array(values, dtype=np.float64), 1)


def appends(*items: tuple[str, Sequence[float]], expected: Sequence[int | None] | None = None) -> Appends:
    """One feature for many sessions."""
    return Appends(
        [session for session, _ in items],
        np.array([value for _, values in items for value in values], dtype=np.float64),
        [len(values) for _, values in items],
        1,
        expected or [None] * len(items),
    )


async def test_a_session_takes_in_its_history_and_what_follows(gateway: Gateway, engine: RememberingEngine) -> None:
    """Steps are counted from the history on; a forecast comes only where a horizon was given, with its times."""
    opened = await gateway.sessions.open(call(), MODEL.name, plain(1, 2), datetime(2024, 3, 1, tzinfo=UTC), "1800s")
    silent = await gateway.sessions.append(call(), opened.session, plain(3))
    asked = await gateway.sessions.append(call(), opened.session, plain(4, math.nan, 5), 2, [0.1, 0.3])

    assert (2, MODEL.name, "1", 3600.0) == (opened.steps, opened.model, opened.version, opened.expires_in)
    assert (3, None) == (silent.steps, silent.result)
    assert 6 == asked.steps
    assert asked.result is not None
    assert [[5.0], [5.0]] == asked.result.mean
    assert {"0.1": [[4.0], [4.0]], "0.3": [[4.5], [4.5]]} == asked.result.quantiles
    assert ["2024-03-01T03:00:00+00:00", "2024-03-01T03:30:00+00:00"] == asked.result.timestamps


@pytest.mark.parametrize(
    ("values", "horizon", "quantiles", "expected", "field"),
    [
        (plain(1, math.inf), None, None, None, "values[1]"),
        (plain(1e101), None, None, None, "values[0]"),
        (plain(*range(6)), None, None, None, "values"),
        (Observations(np.zeros(2), 2), None, None, None, "values"),
        (Observations(np.zeros(3), 2), None, None, None, "values"),
        (plain(1), 7, None, None, "horizon"),
        (plain(1), 0, None, None, "horizon"),
        (plain(1), 1, [0.95], None, "quantiles[0]"),
        (plain(1), None, [0.95], None, "quantiles[0]"),
        (plain(1), None, None, -1, "expected_steps"),
    ],
)
async def test_what_is_not_acceptable_is_refused_before_the_engine(
    gateway: Gateway,
    engine: RememberingEngine,
    values: Observations,
    horizon: int | None,
    quantiles: Sequence[float] | None,
    expected: int | None,
    field: str,
) -> None:
    """As for a forecast; nothing is applied."""
    opened = await gateway.sessions.open(call(), MODEL.name)
    engine.blocks.clear()
    with pytest.raises(InvalidArgument) as raised:
        await gateway.sessions.append(call(), opened.session, values, horizon, quantiles, expected)

    assert (field, []) == (raised.value.field, engine.blocks)


async def test_an_opening_is_checked_like_a_forecast(gateway: Gateway) -> None:
    """Frequency, start, model and values are refused by field; an unknown model is not found."""
    for arguments, field in [
        (("pos-en",), None),
        ((MODEL.name, plain(math.inf)), "values[0]"),
        ((MODEL.name, None, None, "D"), "frequency"),
        ((MODEL.name, None, datetime(9999, 12, 31, 22, 0, tzinfo=UTC)), "start"),
    ]:
        with pytest.raises((InvalidArgument, NotFound)) as raised:
            await gateway.sessions.open(call(), *arguments)  # type: ignore[arg-type]
        assert field == raised.value.field


async def test_the_expected_steps_guard_a_session(gateway: Gateway, engine: RememberingEngine) -> None:
    """A retry of an append that was applied is told so, and changes nothing."""
    opened = await gateway.sessions.open(call(), MODEL.name, plain(1))
    assert 2 == (await gateway.sessions.append(call(), opened.session, plain(2), expected_steps=1)).steps
    with pytest.raises(Aborted):
        await gateway.sessions.append(call(), opened.session, plain(2), expected_steps=1)

    assert [[1.0, 2.0]] == list(engine.sessions.values())


async def test_many_are_advanced_in_one_block_and_fail_alone(gateway: Gateway, engine: RememberingEngine) -> None:
    """Rows keep the order of the items, whatever becomes of their neighbours."""
    first, second = [await gateway.sessions.open(call(), MODEL.name, plain(value)) for value in (10.0, 20.0)]
    engine.blocks.clear()
    nobody = str(SessionId.new(MODEL))
    many = await gateway.sessions.append_many(
        call(),
        appends((second.session, [21, 22]), (nobody, [0]), (first.session, [math.inf]), (first.session, [11])),
        1,
        [0.5],
    )

    assert [3, 0, 0, 2] == many.steps.tolist()
    assert {1: NotFound, 2: InvalidArgument} == {item: type(error) for item, error in many.failures.items()}
    assert "items[2].values[0]" == many.failures[2].field
    assert {0: [[22.0]], 3: [[11.0]]} == {item: result.mean for item, result in many.results.items()}
    assert [3] == [len(block.ids) for block in engine.blocks]


async def test_many_in_order_are_one_block(gateway: Gateway, engine: RememberingEngine) -> None:
    """The short way gives what the careful one does, expectations included."""
    sessions = [(await gateway.sessions.open(call(), MODEL.name)).session for _ in range(3)]
    many = await gateway.sessions.append_many(
        call(), appends(*((session, [n, n]) for n, session in enumerate(sessions)), expected=[None, 0, 5])
    )

    assert [2, 2, 0] == many.steps.tolist()
    assert [2] == list(many.failures)
    assert [[0.0, 0.0], [1.0, 1.0], []] == list(engine.sessions.values())


async def test_a_call_of_nothing_or_too_many_is_refused(gateway: Gateway) -> None:
    """By field; and where nobody's session is named, nothing is asked of the engine."""
    session = str(SessionId.new(MODEL))
    for count in (0, 5):
        with pytest.raises(InvalidArgument) as raised:
            await gateway.sessions.append_many(call(), appends(*[(session, [1])] * count))
        assert "items" == raised.value.field
    many = await gateway.sessions.append_many(call(), appends(("no", [1]), ("no.such.session", [1])))
    assert [NotFound, NotFound] == [type(many.failures[item]) for item in range(2)]


@pytest.mark.parametrize(
    "text", ["", "a", "a.1", "forecast-electricity.1.0f", "no.1." + "0" * 32, "forecast-electricity.1." + "0F" * 16]
)
async def test_any_id_that_is_nobodys_is_not_found(gateway: Gateway, text: str) -> None:
    """Whatever is asked of it."""
    with pytest.raises(NotFound):
        await gateway.sessions.append(call(), text, plain(1))
    with pytest.raises(NotFound):
        await gateway.sessions.tell(call(), text)


async def test_a_fork_goes_its_own_way(gateway: Gateway, engine: RememberingEngine) -> None:
    """It begins where the first is, in the same engine, and neither sees the other's steps."""
    opened = await gateway.sessions.open(call(), MODEL.name, plain(1, 2))
    branch = await gateway.sessions.fork(call(), opened.session)
    await gateway.sessions.append(call(), branch.session, plain(3))

    assert 2 == branch.steps
    assert 2 == (await gateway.sessions.tell(call(), opened.session)).steps
    assert [[1.0, 2.0], [1.0, 2.0, 3.0]] == list(engine.sessions.values())
    assert SessionId.parse(opened.session).key[0] == SessionId.parse(branch.session).key[0]


async def test_a_session_that_was_closed_is_gone(gateway: Gateway) -> None:
    """It says how many steps it had; then there is none."""
    opened = await gateway.sessions.open(call(), MODEL.name, plain(1, 2))

    assert (opened.session, 2) == ((ended := await gateway.sessions.close(call(), opened.session)).session, ended.steps)
    with pytest.raises(NotFound):
        await gateway.sessions.tell(call(), opened.session)


async def test_a_state_moves(gateway: Gateway) -> None:
    """What was exported takes the place of another session's state; nothing is no state."""
    one = await gateway.sessions.open(call(), MODEL.name, plain(1, 2, 3))
    other = await gateway.sessions.open(call(), MODEL.name, plain(9))
    blob = await gateway.sessions.export_state(call(), one.session)

    assert 3 == (await gateway.sessions.import_state(call(), other.session, blob)).steps
    with pytest.raises(InvalidArgument):
        await gateway.sessions.import_state(call(), other.session, b"")


async def test_a_late_or_abandoned_call_takes_its_rows_back(gateway: Gateway, engine: RememberingEngine) -> None:
    """Those that were not answered are cancelled, and their room is free again."""
    opened = await gateway.sessions.open(call(), MODEL.name)
    engine.held = True
    for _ in range(3):
        with pytest.raises(DeadlineExceeded):
            await gateway.sessions.append(call(_soon()), opened.session, plain(1))
        leaving = asyncio.ensure_future(gateway.sessions.append(call(), opened.session, plain(1)))
        await asyncio.sleep(0.01)
        leaving.cancel()
        await asyncio.wait([leaving])

    assert 6 == len(engine.cancelled)
    # An answer that comes all the same is nobody's.
    for block in engine.blocks[1:]:
        engine.answer(block)


async def test_more_than_there_is_room_for_is_refused(gateway: Gateway, engine: RememberingEngine) -> None:
    """Rows of sessions count as all rows do."""
    opened = await gateway.sessions.open(call(), MODEL.name)
    engine.held = True
    waiting = [asyncio.ensure_future(gateway.sessions.append(call(), opened.session, plain(1))) for _ in range(4)]
    await asyncio.sleep(0.01)
    with pytest.raises(QueueFull):
        await gateway.sessions.append(call(), opened.session, plain(1))
    with pytest.raises(QueueFull):
        await gateway.sessions.append_many(call(), appends((opened.session, [1])))
    for block in engine.blocks[1:]:
        engine.answer(block)
    assert [1, 2, 3, 4] == sorted(advance.steps for advance in await asyncio.gather(*waiting))


async def test_a_server_that_drains_takes_nothing(gateway: Gateway, lifecycle: Lifecycle) -> None:
    """Every use is refused for now."""
    opened = await gateway.sessions.open(call(), MODEL.name)
    lifecycle.set(Phase.DRAINING)
    for work in (
        gateway.sessions.open(call(), MODEL.name),
        gateway.sessions.append(call(), opened.session, plain(1)),
        gateway.sessions.append_many(call(), appends((opened.session, [1]))),
        gateway.sessions.tell(call(), opened.session),
    ):
        with pytest.raises(Unavailable):
            await work


@given(st.lists(st.text(max_size=40) | st.binary(min_size=16, max_size=16).map(lambda key: f"m.1.{key.hex()}")))
def test_many_ids_are_read_as_one_is(texts: list[str]) -> None:
    """The fast reading gives the keys of the careful one, or leaves it to that."""
    split = split_ids(texts)
    if split is not None:
        prefixes, keys = split
        for index, (text, prefix) in enumerate(zip(texts, prefixes, strict=True)):
            assert text == prefix + keys[16 * index : 16 * (index + 1)].hex()


def test_an_id_is_read_as_it_was_written() -> None:
    """Names of models may hold dots."""
    session = SessionId(ModelKey("a.b-2.c", "12"), os.urandom(16))
    assert session == SessionId.parse(str(session))


def _soon() -> float:
    return time.monotonic() + 0.01
