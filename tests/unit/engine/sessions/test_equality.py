"""A series that comes in pieces is forecast as the whole, and as if no other came beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from conveyor.engine.executors.torch_executor import TorchExecutor
from conveyor.engine.sessions.options import SessionOptions
from conveyor.features.series import SeriesEncoder
from conveyor.spec import ForecastSpec
from support.sessions import Answered, Ask, SessionEngine, key
from unit.engine.sessions.conftest import MODEL, Whole

START = "2024-03-01T00:00:00+02:00"
# Room for few states on the device and on the host, so that they move to and fro.
CROWDED = SessionOptions(device_bytes=1, host_bytes=16 * 2 * 2 * 4 * 40, step_rows=3, lane_rows=2, slice_s=0.0005)
LONGEST = 40


def _engine(package: Path, options: SessionOptions) -> SessionEngine:
    engine = SessionEngine(TorchExecutor("cpu"), MODEL, options)
    engine.loop.load(MODEL, package)
    return engine


def _alone(package: Path, pieces: list[npt.NDArray[np.float64]], start: str) -> list[Answered]:
    """The answers of a stream that has an engine to itself."""
    engine = _engine(package, SessionOptions())
    return [
        engine.now(Ask(number, key(1), piece, opens=number == 0, start=start if number == 0 else "", forecast=True))[0]
        for number, piece in enumerate(pieces)
    ]


def _parts(answer: Answered) -> list[npt.NDArray[np.floating]]:
    """A forecast, and what restores it."""
    parts = [answer.forecast, answer.loc, answer.scale]
    return [part for part in parts if part is not None]


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_cut_in_any_company_gives_what_the_whole_series_gives(
    package: Path, spec: ForecastSpec, whole: Whole, data: st.DataObject
) -> None:
    """The forecast after each piece is that of the one-shot call to 1e-5, and bit for bit that of the stream alone,
    whatever runs beside it, is cancelled, or has its state moved away meanwhile."""
    chance = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    streams = data.draw(st.integers(1, 14))
    series, pieces, starts = [], [], []
    for _ in range(streams):
        cuts = chance.integers(1, LONGEST, size=int(chance.integers(1, 5)))
        cuts[chance.random(len(cuts)) < 0.5] = 1
        values = chance.normal(100.0, 5.0, size=(int(cuts.sum()), 2)).cumsum(axis=0)
        values[chance.random(values.shape) < 0.1] = np.nan
        values[0] = 1.0
        series.append(values)
        pieces.append(np.split(values, np.cumsum(cuts)[:-1]))
        starts.append(START if chance.random() < 0.5 else "")
    engine = _engine(package, CROWDED)
    asked: dict[int, tuple[int, int]] = {}
    sent, doomed = [0] * streams, set[int]()
    while any(count < len(pieces[stream]) for stream, count in enumerate(sent)):
        asks = []
        for stream in chance.permutation(streams).tolist():
            # Some have several under way at once, some none.
            for _ in range(int(chance.integers(0, 3))):
                if sent[stream] == len(pieces[stream]):
                    break
                piece, row_id = sent[stream], len(asked) + len(doomed)
                opens = piece == 0
                asked[row_id] = stream, piece
                asks.append(Ask(row_id, key(stream), pieces[stream][piece], opens, starts[stream] * opens, True))
                sent[stream] += 1
                if chance.random() < 0.2:
                    # Another append, which is taken back before it can begin.
                    row_id = len(asked) + len(doomed)
                    doomed.add(row_id)
                    asks.append(Ask(row_id, key(stream), np.ones((2, 2))))
        if asks:
            engine.ask(*asks)
            engine.loop.cancel([ask.id for ask in asks if ask.id in doomed])
        engine.run(int(chance.integers(0, 4)))
    engine.run()

    assert asked.keys() == engine.answers.keys()
    restore = SeriesEncoder(spec.series).restore
    alone = [_alone(package, some, start) for some, start in zip(pieces, starts, strict=True)]
    for row_id, (stream, piece) in asked.items():
        answer, expected = engine.answers[row_id], alone[stream][piece]
        assert not answer.error, answer.message
        seen = np.concatenate(pieces[stream][: piece + 1])
        assert (len(seen), starts[stream]) == (answer.steps, answer.start)
        assert [part.tobytes() for part in _parts(expected)] == [part.tobytes() for part in _parts(answer)]
        one_shot = whole(seen, starts[stream])
        np.testing.assert_allclose(restore(*_parts(answer)), one_shot, rtol=1e-5)


def test_crowded_engines_move_states_about(package: Path) -> None:
    """So that the test above says something about that."""
    engine = _engine(package, replace(CROWDED, host_bytes=10**6))
    engine.now(*(Ask(number, key(number), np.ones((1, 2)), opens=True) for number in range(30)))
    engine.now(*(Ask(30 + number, key(number), np.ones((1, 2))) for number in range(30)))
    moved = engine.loop.stats().sessions[MODEL].moved
    assert moved["host"] > 0
    assert moved["device"] > 0
