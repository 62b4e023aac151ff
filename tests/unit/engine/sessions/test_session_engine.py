"""How sessions begin, go on, and end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conveyor.domain import ModelKey
from conveyor.engine.executors.torch_executor import TorchExecutor
from conveyor.engine.sessions.options import SessionOptions
from conveyor.errors import Aborted, InvalidArgument, NotFound, QueueFull
from conveyor.wire.sessions import SessionCall, SessionState
from support.packages import SENTIMENT, write_tiny_package
from support.sessions import Ask, SessionEngine, key
from unit.engine.sessions.conftest import MODEL

ONE = np.array([[1.0, 2.0]])
NOTHING = np.empty((0, 2))
# Eight states are the fewest that a device has room for.
FULL = SessionOptions(device_bytes=1, host_bytes=0, idle_s=100.0)

Start = Callable[..., SessionEngine]


@pytest.fixture
def start(package: Path) -> Start:
    """Starts an engine."""

    def begin(options: SessionOptions | None = None) -> SessionEngine:
        engine = SessionEngine(TorchExecutor("cpu"), MODEL, options or SessionOptions(idle_s=100.0))
        engine.loop.load(MODEL, package)
        return engine

    return begin


def call(engine: SessionEngine, verb: str, session: bytes, **more: bytes) -> SessionState:
    """Asks about a session."""
    return engine.loop.session(SessionCall(verb, MODEL, session, **more))  # type: ignore[arg-type]


def live(engine: SessionEngine) -> int:
    """Sessions there are."""
    return engine.loop.stats().sessions[MODEL].live


def test_rows_of_a_session_are_applied_in_order_and_count_its_steps(start: Start) -> None:
    """Several in one block, short and long, and one that only reads."""
    engine = start()
    rows = [ONE, np.repeat(ONE, 30, axis=0), ONE, NOTHING, np.repeat(ONE, 3, axis=0)]
    found = engine.now(*(Ask(index, key(1), values, opens=index == 0) for index, values in enumerate(rows)))
    assert [1, 31, 32, 32, 35] == [answer.steps for answer in found]
    assert [100.0] * 5 == [answer.expires_in_s for answer in found]


def test_an_append_that_expects_other_steps_changes_nothing(start: Start) -> None:
    """It is told how many there are, so that a caller who lost an answer knows whether it was applied."""
    engine = start()
    engine.now(Ask(0, key(1), ONE, opens=True))
    again, right = engine.now(Ask(1, key(1), ONE, expected=0), Ask(2, key(1), ONE, expected=1))
    assert ("Aborted", "the session has 1 steps; nothing was applied") == (again.error, again.message)
    assert 2 == right.steps


def test_what_is_no_session_is_not_found(start: Start) -> None:
    """Never opened, closed, or of a model that is not there."""
    engine = start()
    engine.now(Ask(0, key(1), ONE, opens=True))
    assert 1 == call(engine, "close", key(1)).steps
    unknown, closed = engine.now(Ask(1, key(2), ONE), Ask(2, key(1), ONE))
    assert ("NotFound", "NotFound") == (unknown.error, closed.error)
    for verb in ("tell", "fork", "export", "close"):
        with pytest.raises(NotFound):
            call(engine, verb, key(1), other=key(3))
    with pytest.raises(NotFound):
        engine.loop.session(SessionCall("tell", ModelKey("other", "1"), key(1)))
    assert 0 == live(engine)


def test_closing_a_session_ends_what_is_asked_of_it(start: Start) -> None:
    """A long append that has begun, and what waits behind it; others go on."""
    engine = start(SessionOptions(slice_s=0.0001))
    engine.now(Ask(0, key(1), ONE, opens=True), Ask(1, key(2), ONE, opens=True))
    engine.ask(Ask(2, key(1), np.repeat(ONE, 500, axis=0)), Ask(3, key(1), ONE), Ask(4, key(2), ONE))
    engine.run(3)
    call(engine, "close", key(1))
    engine.run()
    assert ["NotFound", "NotFound", ""] == [engine.answers[row_id].error for row_id in (2, 3, 4)]


def test_an_opening_that_nobody_waits_for_leaves_nothing(start: Start) -> None:
    """Before it has begun, and in the middle of its history; what waits behind it fails."""
    engine = start(SessionOptions(slice_s=0.0001))
    long = np.repeat(ONE, 500, axis=0)
    engine.ask(Ask(0, key(1), long, opens=True), Ask(1, key(2), long, opens=True), Ask(2, key(2), ONE))
    engine.loop.cancel([0])
    engine.run(3)
    assert 1 == live(engine)
    engine.loop.cancel([1])
    engine.run()
    assert (0, {2: "NotFound"}) == (live(engine), {row: answer.error for row, answer in engine.answers.items()})


def test_an_append_that_has_begun_is_finished_although_its_caller_left(start: Start) -> None:
    """All of it or nothing; one that has not begun is dropped."""
    engine = start(SessionOptions(slice_s=0.0001))
    engine.now(Ask(0, key(1), ONE, opens=True))
    engine.ask(Ask(1, key(1), np.repeat(ONE, 500, axis=0)), Ask(2, key(1), ONE))
    engine.run(2)
    assert 1 == call(engine, "tell", key(1)).steps
    engine.loop.cancel([1, 2])
    engine.run()
    assert 501 == call(engine, "tell", key(1)).steps


def test_a_row_whose_deadline_passes_before_its_turn_is_not_applied(start: Start) -> None:
    """And an opening leaves no session."""
    engine = start()
    engine.ask(Ask(0, key(1), ONE, opens=True, deadline=5.0), Ask(1, key(2), ONE, opens=True))
    engine.clock.now = 6.0
    engine.run()
    assert ("DeadlineExceeded", 1) == (engine.answers[0].error, engine.answers[1].steps)
    assert 1 == live(engine)


def test_a_session_ends_after_its_idle_time_and_not_before(start: Start) -> None:
    """Each use begins it anew; asking how it stands is none."""
    engine = start()
    engine.now(Ask(0, key(1), ONE, opens=True), Ask(1, key(2), ONE, opens=True))
    engine.clock.now = 60.0
    engine.now(Ask(2, key(1), ONE))
    engine.clock.now = 99.0
    assert 1.0 == pytest.approx(call(engine, "tell", key(2)).expires_in_s, abs=0.1)
    engine.clock.now = 101.0
    engine.loop.step()
    assert 1 == live(engine)
    assert {"idle": 1} == engine.loop.stats().sessions[MODEL].evicted
    assert 2 == call(engine, "tell", key(1)).steps
    engine.clock.now = 200.0
    with pytest.raises(NotFound):
        call(engine, "tell", key(1))


def test_an_idle_engine_wakes_to_end_sessions(start: Start) -> None:
    """It says when; without sessions it sleeps for ever."""
    engine = start()
    assert np.inf == engine.loop.wakes_at
    engine.now(Ask(0, key(1), ONE, opens=True))
    while live(engine):
        assert engine.loop.wakes_at > engine.clock.now
        engine.clock.now = engine.loop.wakes_at
        engine.loop.step()
    assert 100.0 <= engine.clock.now < 110.0


def test_no_more_sessions_are_opened_than_the_quota_and_memory_allow(start: Start) -> None:
    """Those there are go on; one that ends makes room."""
    for engine in (start(SessionOptions(quota=8)), start(FULL)):
        opened = engine.now(*(Ask(number, key(number), ONE, opens=True) for number in range(8)))
        assert [1] * 8 == [answer.steps for answer in opened]
        refused, appended = engine.now(Ask(8, key(8), ONE, opens=True), Ask(9, key(0), ONE))
        assert ("QueueFull", 2) == (refused.error, appended.steps)
        with pytest.raises(QueueFull):
            call(engine, "fork", key(0), other=key(9))
        call(engine, "close", key(3))
        first, second = engine.now(*(Ask(number, key(number), ONE, opens=True) for number in (10, 11)))
        assert (1, "QueueFull") == (first.steps, second.error)


def test_a_full_queue_refuses_and_stays_in_order(start: Start) -> None:
    """One that waits alone always fits, however long it is."""
    engine = start(SessionOptions(rows=2, values=4))
    long, more = Ask(0, key(1), np.repeat(ONE, 9, axis=0), opens=True), Ask(1, key(2), ONE, opens=True)
    engine.ask(long, more)
    engine.ask(Ask(2, key(3), NOTHING, opens=True))
    engine.run()
    assert {0: "", 1: "QueueFull", 2: "QueueFull"} == {row: answer.error for row, answer in engine.answers.items()}
    assert 1 == live(engine)
    assert 1 == engine.now(Ask(3, key(2), ONE, opens=True))[0].steps


@pytest.mark.parametrize(
    ("ask", "error"),
    [
        (Ask(9, key(9), np.array([[np.inf, 1.0]]), opens=True), "InvalidArgument"),
        (Ask(9, key(9), np.array([[1.0, np.nan]]), opens=True, forecast=True), "InvalidArgument"),
        (Ask(9, key(9), NOTHING, opens=True, forecast=True), "InvalidArgument"),
        (Ask(9, key(9), ONE, opens=True, start="yesterday"), "InvalidArgument"),
        (Ask(9, key(9), np.repeat(ONE, 9, axis=0), opens=True, start="9999-12-31T23:00:00"), "InvalidArgument"),
        (Ask(9, key(1), ONE, opens=True), "Aborted"),
    ],
)
def test_an_opening_that_is_wrong_is_refused_and_leaves_nothing(start: Start, ask: Ask, error: str) -> None:
    """While others in its block go on."""
    engine = start()
    engine.now(Ask(0, key(1), ONE, opens=True))
    wrong, right = engine.now(ask, Ask(1, key(1), ONE, forecast=True))
    assert (error, 2) == (wrong.error, right.steps)
    assert 1 == live(engine)


def test_values_of_another_width_are_refused(start: Start) -> None:
    """And nothing else happens to the engine."""
    engine = start()
    assert "InvalidArgument" == engine.now(Ask(0, key(1), np.ones((1, 1)), opens=True))[0].error
    assert 1 == engine.now(Ask(1, key(1), ONE, opens=True))[0].steps


def test_a_fork_goes_on_from_the_same_state_by_itself(start: Start) -> None:
    """Both give the same forecast then, and each its own later; in the middle of an append it is that of before."""
    engine = start(SessionOptions(slice_s=0.0001))
    engine.now(Ask(0, key(1), np.array([[1.0, 2.0], [3.0, 1.0]]), opens=True))
    engine.ask(Ask(1, key(1), np.repeat(ONE, 500, axis=0)))
    engine.run(3)
    assert 2 == call(engine, "fork", key(1), other=key(2)).steps
    engine.run()
    copy, original = engine.now(Ask(2, key(2), NOTHING, forecast=True), Ask(3, key(1), NOTHING, forecast=True))
    assert (2, 502) == (copy.steps, original.steps)
    assert copy.forecast is not None
    assert copy.forecast.tobytes() != original.forecast.tobytes()  # type: ignore[union-attr]
    call(engine, "fork", key(2), other=key(3))
    one, other = engine.now(Ask(4, key(2), ONE, forecast=True), Ask(5, key(3), ONE, forecast=True))
    assert one.forecast.tobytes() == other.forecast.tobytes()  # type: ignore[union-attr]
    with pytest.raises(Aborted):
        call(engine, "fork", key(2), other=key(3))


def test_an_exported_state_goes_on_in_another_engine_bit_for_bit(start: Start) -> None:
    """In place of another session's, and as a new one; servers of one key take each other's."""
    options = SessionOptions(state_key=b"k" * 32)
    one, other = start(options), start(options)
    one.now(Ask(0, key(1), np.array([[1.0, 2.0], [3.0, 1.0]]), opens=True, start="2024-01-01T00:00:00+01:00"))
    other.now(Ask(0, key(2), ONE, opens=True))
    blob = call(one, "export", key(1)).blob
    assert 2 == call(other, "import", key(2), blob=blob).steps
    assert 2 == call(other, "import", key(3), blob=blob).steps
    here = one.now(Ask(1, key(1), ONE, forecast=True))[0]
    for there in other.now(Ask(1, key(2), ONE, forecast=True), Ask(2, key(3), ONE, forecast=True)):
        assert here.forecast.tobytes() == there.forecast.tobytes()  # type: ignore[union-attr]
        assert ("2024-01-01T00:00:00+01:00", 3) == (there.start, there.steps)


def test_a_state_that_is_not_what_was_exported_is_refused_by_name(start: Start, package: Path, tmp_path: Path) -> None:
    """Altered in any byte, cut, of another key, format, model or package; the session stays as it was."""
    engine = start()
    engine.now(Ask(0, key(1), ONE, opens=True), Ask(1, key(2), ONE, opens=True))
    blob = call(engine, "export", key(1)).blob
    flipped = bytearray(blob)
    flipped[100] ^= 1
    cases = {"altered": [bytes(flipped), blob[:-1] + bytes((blob[-1] ^ 1,)), blob[:-5]]}
    cases["format is unknown"] = [b"", b"no state", bytes(200)]
    cases["format 2"] = [blob[:16] + b"\x02" + blob[17:]]
    cases["another key"] = [call(_opened(start(replace(FULL, state_key=b"o" * 32))), "export", key(1)).blob]
    for reason, blobs in cases.items():
        for wrong in blobs:
            with pytest.raises(InvalidArgument, match=reason):
                call(engine, "import", key(2), blob=wrong)
    assert 1 == call(engine, "tell", key(2)).steps
    twin = tmp_path / "twin"
    twin.mkdir()
    for file in package.iterdir():
        (twin / file.name).write_bytes(file.read_bytes())
    (twin / "model.toml").write_text((twin / "model.toml").read_text() + "\n")
    options = SessionOptions(state_key=b"k" * 32)
    other = SessionEngine(TorchExecutor("cpu"), MODEL, options)
    other.loop.load(MODEL, twin)
    with pytest.raises(InvalidArgument, match="another package"):
        call(other, "import", key(2), blob=call(_opened(start(options)), "export", key(1)).blob)
    other.loop.load(ModelKey(MODEL.name, "2"), package)
    with pytest.raises(InvalidArgument, match="version 1"):
        other.loop.session(
            SessionCall("import", ModelKey(MODEL.name, "2"), key(2), blob=call(_opened(other), "export", key(1)).blob)
        )


def test_a_state_is_not_imported_under_appends(start: Start) -> None:
    """Their steps would be lost."""
    engine = _opened(start())
    blob = call(engine, "export", key(1)).blob
    engine.ask(Ask(1, key(1), ONE))
    with pytest.raises(Aborted):
        call(engine, "import", key(1), blob=blob)
    engine.run()
    assert 1 == call(engine, "import", key(1), blob=blob).steps


def test_a_model_that_does_not_read_forward_bit_by_bit_takes_no_sessions(tmp_path: Path) -> None:
    """Its rows fail, and no other."""
    model = ModelKey("sentiment-en", "1")
    engine = SessionEngine(TorchExecutor("cpu"), model)
    engine.loop.load(model, write_tiny_package(tmp_path, SENTIMENT))
    assert "InvalidArgument" == engine.now(Ask(0, key(1), np.ones((1, 1)), opens=True))[0].error


def test_unloading_a_model_ends_its_sessions(start: Start) -> None:
    """What waits fails, the sessions are counted as ended, and the next load begins anew."""
    engine = _opened(start())
    engine.ask(Ask(1, key(1), ONE))
    engine.loop.unload(MODEL)
    assert "Unavailable" == engine.answers[1].error
    counts = engine.loop.stats().sessions[MODEL]
    assert (0, {"unloaded": 1}) == (counts.live, counts.evicted)
    assert engine.loop.idle


def _opened(engine: SessionEngine) -> SessionEngine:
    engine.now(Ask(0, key(1), ONE, opens=True))
    return engine
