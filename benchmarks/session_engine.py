"""What a step of streaming sessions costs in the engine: against the roof of the machine, against history, in memory.

python benchmarks/session_engine.py [--sessions 100000] [--out FILE.json]

Every measure is of the shipped `forecast-electricity` on the CPU, through `EngineLoop` as the server runs it (blocks
in, answers out, nothing else), or of the executor alone where it says so. Each is the best of several repeats.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from conveyor.domain import ModelKey
from conveyor.engine.batching.backlog import BacklogLimits
from conveyor.engine.batching.policy import BatchLimits
from conveyor.engine.executors.torch_executor import TorchExecutor
from conveyor.engine.loop import EngineLoop
from conveyor.engine.sessions.options import SessionOptions
from conveyor.features.series import SeriesEncoder
from conveyor.repository.manifest import read_manifest
from conveyor.wire.port import Reply
from conveyor.wire.sessions import NO_EXPECTATION, SessionBlock, SessionResults

__all__ = [
    "Engine",
    "device_seconds_by_history",
    "memory_per_session",
    "one_shot_against_append",
    "steps_against_roof",
]

KEY = ModelKey("forecast-electricity", "1")
PACKAGE = Path(__file__).parents[1] / "models" / KEY.name / KEY.version
START = "2014-01-01T00:00:00+00:00"

_REPEATS = 200


class Engine:
    """The engine loop with the model in it."""

    def __init__(self, **options: Any) -> None:
        self.results: list[SessionResults] = []
        self.executor = TorchExecutor("cpu")
        limits = BacklogLimits(rows=8192, steps=64 * 2**20)
        told = SessionOptions(**options)
        self.loop: EngineLoop[Any] = EngineLoop(
            self.executor, limits, BatchLimits(), self._reply, time.monotonic, sessions=told
        )
        self.loop.load(KEY, PACKAGE)
        self._next_id = 0

    def _reply(self, reply: Reply) -> None:
        assert isinstance(reply, SessionResults), reply
        self.results.append(reply)

    def block(self, keys: np.ndarray, steps: int, *, opens: bool = False, forecast: bool = False) -> SessionBlock:
        """The same number of steps for each of some sessions. keys: uint8 [sessions, 16]."""
        count = len(keys)
        ids = np.arange(self._next_id, self._next_id + count)
        self._next_id += count
        return SessionBlock(
            KEY,
            ids,
            keys,
            np.full(count, opens),
            np.full(count, np.inf),
            np.full(count, NO_EXPECTATION),
            np.full(count, forecast),
            np.full(count, steps, dtype=np.int32),
            np.random.default_rng(0).normal(4500.0, 800.0, (count * steps, 1)),
            [START if opens else ""] * count,
        )

    def run(self, block: SessionBlock) -> float:
        """Runs a block to its end; the seconds it took."""
        started = time.perf_counter()
        self.loop.submit(block)
        while not self.loop.idle:
            self.loop.step()
        return time.perf_counter() - started

    def open(self, count: int, steps: int = 1) -> np.ndarray:
        """Sessions with a history of so many steps; their keys."""
        keys = np.frombuffer(secrets.token_bytes(16 * count), dtype=np.uint8).reshape(count, 16)
        for first in range(0, count, 1000):
            self.run(self.block(keys[first : first + 1000], steps, opens=True))
            self.results.clear()
        return keys


def _best(work: Callable[[], float], repeats: int = _REPEATS) -> float:
    return min(work() for _ in range(repeats))


def _timed(work: Callable[[], object]) -> Callable[[], float]:
    def once() -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    return once


def steps_against_roof(sessions: int) -> dict[str, float]:
    """Steps per second of so many sessions in step, in the engine and in the executor alone, beside what a float32
    matrix product of the same work gives."""
    engine = Engine()
    keys = engine.open(sessions)
    blocks = iter([engine.block(keys, 1) for _ in range(_REPEATS + 1)])
    engine.run(next(blocks))
    engine_s = _best(lambda: engine.run(next(blocks)))
    states = engine.executor.session_states(KEY)
    states.add_slab(sessions)
    inputs = np.zeros((sessions, 1, states.series.width), dtype=np.float32)
    slots, wanted = np.arange(sessions, dtype=np.int32), np.zeros(sessions, dtype=np.bool_)
    states.write(slots, np.zeros((sessions, states.width), dtype=np.float32))
    executor_s = _best(_timed(lambda: states.step(slots, inputs, wanted)))
    spec = read_manifest(PACKAGE / "model.toml").recurrent
    width = states.series.width + spec.hidden
    one, other = torch.randn(sessions, width), torch.randn(width, 4 * spec.hidden)
    same_s = _best(_timed(lambda: torch.mm(one, other)))
    flops = 2 * sessions * width * 4 * spec.hidden
    square = torch.randn(1024, 1024)
    roof_flops = 2 * 1024**3 / _best(_timed(lambda: torch.mm(square, square)), 100)
    return {
        "sessions": sessions,
        "engine_steps_per_s": sessions / engine_s,
        "executor_steps_per_s": sessions / executor_s,
        "product_of_this_shape_steps_per_s": sessions / same_s,
        "roof_gflops": roof_flops / 1e9,
        "roof_steps_per_s": sessions * roof_flops / flops,
        "engine_over_roof": (sessions / engine_s) / (sessions * roof_flops / flops),
        "executor_over_roof": (sessions / executor_s) / (sessions * roof_flops / flops),
    }


def device_seconds_by_history() -> dict[str, float]:
    """Seconds that the execution of one appended step takes after 10 steps and after 100 000."""
    found = {}
    engine = Engine()
    for history in (10, 100_000):
        keys = engine.open(1, history)
        engine.run(engine.block(keys, 1))
        engine.results.clear()
        for _ in range(_REPEATS):
            engine.run(engine.block(keys, 1))
        found[history] = min(result.report.compute_s for result in engine.results)
    return {
        "after_10_s": found[10],
        "after_100000_s": found[100_000],
        "ratio": found[100_000] / found[10],
    }


def one_shot_against_append(observations: int = 10_000) -> dict[str, float]:
    """Seconds on the device for a one-shot forecast from a history, and for one more step of a session with the whole
    horizon forecast from it."""
    from conveyor.engine.batching.shapes import Stair
    from conveyor.engine.executors.port import Batch

    engine = Engine()
    keys = engine.open(1, observations)
    for _ in range(_REPEATS):
        engine.run(engine.block(keys, 1, forecast=True))
    append_s = min(result.report.compute_s for result in engine.results)
    spec = read_manifest(PACKAGE / "model.toml")
    values = np.random.default_rng(0).normal(4500.0, 800.0, (observations, 1))
    encoded = SeriesEncoder(spec.series).encode(values, None)  # type: ignore[union-attr]
    batch = Batch(encoded.inputs[None], np.array([observations], dtype=np.int32), [Stair(1, observations)])
    whole_s = _best(_timed(lambda: engine.executor.run(KEY, batch)), 5)
    return {"append_s": append_s, "one_shot_s": whole_s, "ratio": whole_s / append_s}


def memory_per_session(sessions: int) -> dict[str, float]:
    """Memory that this process gains by sessions, over the bytes of their states."""
    engine = Engine()
    engine.open(2000)
    before = _resident_bytes()
    engine.open(sessions)
    gained = (_resident_bytes() - before) / sessions
    width = engine.executor.session_states(KEY).width
    features = len(engine.executor.session_states(KEY).series.features)
    # h and c, the scaling of each feature, the count of steps, the start and its offset.
    state = 4 * width + 24 * features + 24
    return {"sessions": sessions, "bytes": gained, "state_bytes": state, "ratio": gained / state}


def _resident_bytes() -> int:
    import gc

    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=100_000)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "256")
    found: dict[str, object] = {"torch": torch.__version__}
    found["memory"] = memory_per_session(arguments.sessions)
    found["steps"] = [steps_against_roof(sessions) for sessions in (1, 16, 256, 1000)]
    found["history"] = device_seconds_by_history()
    found["one_shot"] = one_shot_against_append()
    text = json.dumps(found, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    _main()
