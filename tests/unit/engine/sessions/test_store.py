"""What the state directory keeps, over ends of every kind."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from conveyor.engine.executors.torch_executor import TorchExecutor
from conveyor.engine.sessions.options import SessionOptions
from conveyor.engine.sessions.store import StateDirectory
from conveyor.errors import NotFound
from conveyor.wire.sessions import SessionCall, engine_of
from support.sessions import Ask, SessionEngine, key
from unit.engine.sessions.conftest import MODEL

START = "2024-01-01T00:00:00+01:00"
Start = Callable[..., SessionEngine]


@pytest.fixture
def start(package: Path, tmp_path: Path) -> Start:
    """Starts an engine on a state directory."""

    def begin(**options: object) -> SessionEngine:
        options = {"state_dir": tmp_path / "state", "checkpoint_s": 0.0, "idle_s": 100.0} | options
        engine = SessionEngine(TorchExecutor("cpu"), MODEL, SessionOptions(**options))  # type: ignore[arg-type]
        engine.loop.load(MODEL, package)
        return engine

    return begin


def _live(engine: SessionEngine) -> int:
    return engine.loop.stats().sessions[MODEL].live


def _opens(engine: SessionEngine, numbers: range) -> None:
    values = np.arange(6.0).reshape(3, 2)
    engine.now(*(Ask(number, key(number), values + number, opens=True, start=START) for number in numbers))


def test_sessions_go_on_bit_for_bit_after_a_restart(start: Start) -> None:
    """They are counted at once, and brought in when they are used; those that were closed stay closed."""
    one = start()
    _opens(one, range(20))
    one.loop.session(SessionCall("close", MODEL, key(7)))
    expected = one.loop.session(SessionCall("export", MODEL, key(3)))
    one.loop.close()
    two = start(state_key=b"k" * 32)
    assert 19 == _live(two)
    assert 3 == two.loop.session(SessionCall("tell", MODEL, key(3))).steps
    with pytest.raises(NotFound):
        two.loop.session(SessionCall("tell", MODEL, key(7)))
    there = two.now(Ask(100, key(3), np.ones((1, 2)), forecast=True))[0]
    undisturbed = start(state_dir=None)
    _opens(undisturbed, range(20))
    here = undisturbed.now(Ask(100, key(3), np.ones((1, 2)), forecast=True))[0]
    assert here.forecast.tobytes() == there.forecast.tobytes()  # type: ignore[union-attr]
    assert (START, 4) == (there.start, there.steps)
    assert expected.steps == 3
    assert 19 == _live(two)


def test_an_engine_that_is_killed_loses_no_more_than_a_checkpoint_interval(start: Start) -> None:
    """What was answered before the last checkpoint is there, and a session is never half an append."""
    one = start(checkpoint_s=5.0)
    _opens(one, range(10))
    one.clock.now = 6.0
    one.loop.step()
    one.now(Ask(10, key(0), np.ones((1, 2))))
    # Not closed: its process is gone.
    two = start()
    assert (10, 3) == (_live(two), two.loop.session(SessionCall("tell", MODEL, key(0))).steps)


def test_sessions_in_constant_use_do_not_keep_others_from_a_checkpoint(start: Start) -> None:
    """Each is written once in a checkpoint, in which every session has its turn."""
    one = start(checkpoint_s=5.0)
    _opens(one, range(300))
    one.clock.now = 6.0
    for turn in range(4):
        one.now(*(Ask(1000 * (1 + turn) + number, key(number), np.ones((1, 2))) for number in range(250)))
    # Not closed: its process is gone.
    two = start()
    assert 300 == _live(two)
    assert 3 == two.loop.session(SessionCall("tell", MODEL, key(299))).steps


def test_sessions_that_find_no_room_in_memory_come_back_from_disk(start: Start) -> None:
    """Far more of them than the device and the host have room for, used again and again."""
    engine = start(device_bytes=1, host_bytes=128 * 4)
    plain = start(state_dir=None)
    chance = np.random.default_rng(1)
    for one in (engine, plain):
        _opens(one, range(60))
    for turn in range(1, 8):
        chosen = chance.permutation(60)[:20].tolist()
        asks = [Ask(100 * turn + n, key(n), chance.normal(size=(1 + n % 3, 2)), forecast=True) for n in chosen]
        for ask, found, expected in zip(asks, engine.now(*asks), plain.now(*asks), strict=True):
            assert expected.steps == found.steps, ask
            assert expected.forecast.tobytes() == found.forecast.tobytes()  # type: ignore[union-attr]
    counts = engine.loop.stats().sessions[MODEL]
    assert counts.live == 60
    assert counts.moved["disk"] > 20
    assert counts.state_bytes["device"] + counts.state_bytes["host"] < 60 * 128


def test_sessions_that_are_made_and_not_used_stay_within_the_room_of_the_host(start: Start) -> None:
    """Forks lie there until they are used; they are written out, and come back."""
    engine = start(device_bytes=1, host_bytes=16 * 128)
    _opens(engine, range(1))
    for number in range(1, 101):
        engine.loop.session(SessionCall("fork", MODEL, key(0), other=key(number)))
    engine.loop.step()
    counts = engine.loop.stats().sessions[MODEL]
    assert 101 == counts.live
    assert 0 < counts.state_bytes["host"] <= 16 * 128
    found = engine.now(*(Ask(number, key(number), np.ones((1, 2)), expected=3) for number in range(1, 101)))
    assert [4] * 100 == [answer.steps for answer in found]


def test_a_directory_that_is_full_is_told_and_the_engine_goes_on(start: Start, tmp_path: Path) -> None:
    """Who would need room there gets 503 and is as before; sessions in memory do not notice."""
    engine = start(device_bytes=1, host_bytes=1)
    _opens(engine, range(20))
    with closing(sqlite3.connect(tmp_path / "state" / "sessions.sqlite", isolation_level=None)) as database:
        database.execute("CREATE TRIGGER full BEFORE INSERT ON sessions BEGIN SELECT RAISE(ABORT, 'full'); END")
    for number in (0, 1):
        away, there = engine.now(
            Ask(100 + number, key(number), np.ones((1 + number, 2))), Ask(200 + number, key(19), np.ones((0, 2)))
        )
        assert ("Unavailable", 3) == (away.error, there.steps)
    with closing(sqlite3.connect(tmp_path / "state" / "sessions.sqlite", isolation_level=None)) as database:
        database.execute("DROP TRIGGER full")
    assert [4, 5] == [engine.now(Ask(300 + n, key(n), np.ones((1 + n, 2))))[0].steps for n in (0, 1)]


def test_sessions_on_disk_end_after_their_idle_time_too(start: Start) -> None:
    """Whether anybody asks for them or not."""
    one = start()
    _opens(one, range(10))
    one.loop.close()
    two = start(idle_s=1e-9)
    two.clock.now = 1.0
    two.loop.step()
    assert 0 == _live(two)
    assert 10 == two.loop.stats().sessions[MODEL].evicted["idle"]


def test_however_many_end_on_disk_at_once_they_are_soon_gone(start: Start) -> None:
    """They count for the quota so long as they are there."""
    one = start()
    _opens(one, range(600))
    one.loop.close()
    two = start(idle_s=1e-9)
    two.clock.now = 1.0
    for _ in range(3):
        assert two.loop.wakes_at <= two.clock.now
        two.loop.step()
    assert 0 == _live(two)


def test_each_engine_has_its_own_part_of_the_directory(start: Start) -> None:
    """Also if there were more or fewer of them when it was written."""
    one = start()
    _opens(one, range(40))
    one.loop.close()
    engines = [start(engine=number, num_engines=3) for number in range(3)]
    keys = np.array([np.frombuffer(key(number), dtype=np.uint8) for number in range(40)])
    for number, engine in enumerate(engines):
        assert int((engine_of(keys, 3) == number).sum()) == _live(engine)
    for number, owner in enumerate(engine_of(keys, 3).tolist()):
        assert 3 == engines[owner].loop.session(SessionCall("tell", MODEL, key(number))).steps


def test_engines_may_open_a_new_directory_together(tmp_path: Path) -> None:
    """At the first start of a server all do, and none is refused."""
    together = threading.Barrier(4)

    def open_and_close(directory: Path, engine: int) -> None:
        together.wait(60)
        StateDirectory(directory, engine, 4).close()

    with ThreadPoolExecutor(4) as threads:
        for attempt in range(20):
            opened = [threads.submit(open_and_close, tmp_path / str(attempt), engine) for engine in range(4)]
            for each in opened:
                each.result(60)


def test_sessions_of_another_package_are_not_taken_for_this_ones(start: Start, package: Path, tmp_path: Path) -> None:
    """A version whose weights or description changed begins without any."""
    one = start()
    _opens(one, range(5))
    one.loop.close()
    twin = tmp_path / "twin"
    twin.mkdir()
    for file in package.iterdir():
        (twin / file.name).write_bytes(file.read_bytes())
    (twin / "model.toml").write_text((twin / "model.toml").read_text() + "\n")
    options = SessionOptions(state_dir=tmp_path / "state")
    engine = SessionEngine(TorchExecutor("cpu"), MODEL, options)
    engine.loop.load(MODEL, twin)
    assert 0 == _live(engine)
    with pytest.raises(NotFound):
        engine.loop.session(SessionCall("tell", MODEL, key(1)))


def test_a_record_that_was_damaged_is_not_taken_for_a_session(start: Start, tmp_path: Path) -> None:
    """It is counted; the others are as they were."""
    one = start()
    _opens(one, range(5))
    one.loop.close()
    with closing(sqlite3.connect(tmp_path / "state" / "sessions.sqlite", isolation_level=None)) as database:
        (record,) = database.execute("SELECT record FROM sessions WHERE key = ?", (key(2),)).fetchone()
        damaged = record[:40] + bytes((record[40] ^ 1,)) + record[41:]
        database.execute("UPDATE sessions SET record = ? WHERE key = ?", (damaged, key(2)))
    two = start()
    found = two.now(*(Ask(100 + number, key(number), np.ones((1, 2))) for number in range(5)))
    assert [4, 4, -1, 4, 4] == [answer.steps for answer in found]
    counts = two.loop.stats().sessions[MODEL]
    assert (4, {"damaged": 1}) == (counts.live, counts.evicted)


def test_unloading_leaves_sessions_to_the_directory(start: Start, package: Path) -> None:
    """They are there when the version is loaded again."""
    engine = start()
    _opens(engine, range(5))
    engine.loop.unload(MODEL)
    assert {} == engine.loop.stats().sessions[MODEL].evicted
    engine.loop.load(MODEL, package)
    assert 5 == _live(engine)
    assert 3 == engine.loop.session(SessionCall("tell", MODEL, key(2))).steps


def test_unloading_leaves_sessions_as_they_were_before_what_was_under_way(start: Start, package: Path) -> None:
    """Whether an append had begun or waited; a session that was being opened is none."""
    engine, plain = start(), start(state_dir=None)
    for one in (engine, plain):
        _opens(one, range(2))
    history = np.ones((5000, 2))
    engine.ask(Ask(10, key(0), history), Ask(11, key(8), history, opens=True), Ask(12, key(1), np.ones((1, 2))))
    engine.ask(Ask(13, key(9), np.ones((1, 2)), opens=True))
    engine.run(1)
    engine.loop.unload(MODEL)
    assert {"Unavailable"} == {engine.answers[number].error for number in (10, 11)}
    engine.loop.load(MODEL, package)
    assert 3 >= _live(engine) >= 2
    for one in (engine, plain):
        one.now(Ask(20, key(0), np.ones((1, 2)), forecast=True, expected=3))
    assert plain.answers[20].forecast.tobytes() == engine.answers[20].forecast.tobytes()  # type: ignore[union-attr]


def test_the_directory_is_for_its_user_alone(start: Start, tmp_path: Path) -> None:
    """It holds what users sent, in a way."""
    start()
    assert 0o700 == (tmp_path / "state").stat().st_mode & 0o777
    assert 0o600 == (tmp_path / "state" / "sessions.sqlite").stat().st_mode & 0o777
