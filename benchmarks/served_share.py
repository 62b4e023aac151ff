"""How much of the engine's raw speed reaches those who ask: `python benchmarks/served_share.py`.

Raw is the engine alone in a process, with all texts queued: its policy and its executor, no sockets and no text. Served
is the whole server with default settings, asked by wrk over loopback in a closed loop: one text a request on 128
connections, and 64 texts a request on 8. All three answer the texts of `benchmarks/peers` with the shipped
`sentiment-en`. The three take turns, the server being idle while the engine is measured, because a machine that is
shared with others is a third faster in one minute than in the next; the mean of the turns counts. Raw has a core to
itself; the server shares the cores of the machine with the load generator.

Prints `RESULT served_share <texts a request> <served texts/s> <raw texts/s> <share>` and keeps everything in
`served_share.json`. `SECONDS_EACH` sets the seconds of each of the three, over all turns.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from peers.load import closed_loop, generators
from peers.results import describe_run
from peers.servers import BATCH_ROWS, PACKAGE, Serving, as_json, serve_ours
from peers.work import draw_texts, http_request, read_vocabulary, write_file

from conveyor.domain import ModelKey
from conveyor.engine.batching.backlog import BacklogLimits
from conveyor.engine.batching.policy import BatchLimits
from conveyor.engine.executors.planned import open_executor
from conveyor.engine.loop import EngineLoop
from conveyor.features.text import TextEncoder
from conveyor.repository.manifest import read_manifest
from conveyor.spec import SentimentSpec
from conveyor.wire.messages import NO_DEADLINE, NORMAL_PRIORITY, ResultBlock, RowBlock
from conveyor.wire.port import Reply

_HERE = Path(__file__).parent
_KEY = ModelKey("sentiment-en", "1")
_NUM_TEXTS, _SEED = 2000, 1
# Texts a request → connections.
_SERVED = {1: 128, 64: 8}
_WARMUP_S = 1.5
_TURNS = 3


def raw_rate(texts: Sequence[str], seconds: float) -> dict[str, Any]:
    """Texts per second of the engine alone, and the plan that it follows."""
    spec = read_manifest(PACKAGE / "model.toml")
    assert isinstance(spec, SentimentSpec)
    encoder = TextEncoder.load(spec.text, PACKAGE)
    rows = [encoder.encode_ids(text) for text in texts]
    answered = 0

    def count(reply: Reply) -> None:
        nonlocal answered
        assert isinstance(reply, ResultBlock), reply
        answered += len(reply.ids)

    executor = open_executor("cpu", "auto")
    limits = BacklogLimits(len(rows), sum(map(len, rows))), BatchLimits(rows=BATCH_ROWS, padded_steps=65_536)
    loop = EngineLoop(executor, *limits, reply=count, clock=time.monotonic)
    loop.load(_KEY, PACKAGE)

    def all_once() -> None:
        count = len(rows)
        loop.submit(
            RowBlock(
                model=_KEY,
                ids=list(range(count)),
                deadlines=[NO_DEADLINE] * count,
                priorities=[NORMAL_PRIORITY] * count,
                requests=list(range(count)),
                lengths=list(map(len, rows)),
                inputs=np.concatenate(rows),
            )
        )
        while not loop.idle:
            loop.step()

    all_once()
    answered = 0
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        all_once()
    plan = executor.plan(_KEY)
    return {"texts_per_s": answered / (time.monotonic() - began), "plan": f"{plan.executor} {plan.precision}"}


def served_rate(serving: Serving, texts: Sequence[str], size: int, seconds: float) -> dict[str, Any]:
    """Texts per second of the server, `size` of them in a request."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "requests"
        write_file([_request(serving.port, part) for part in _parts(texts, size)], path)
        closed_loop(serving.port, path, _SERVED[size], _WARMUP_S)
        serving.settle()
        figures = dict(closed_loop(serving.port, path, _SERVED[size], seconds))
    return figures | {"connections": _SERVED[size], "texts_per_s": size * figures["requests_per_s"]}


def _mean_rate(turns: Sequence[dict[str, Any]]) -> float:
    return statistics.fmean(figures["texts_per_s"] for figures in turns)


def _parts(texts: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for first in range(0, len(texts) - size + 1, size):
        yield texts[first : first + size]


def _request(port: int, texts: Sequence[str]) -> bytes:
    return http_request(port, "/v1/sentiment", as_json({"inputs": texts}))


def main() -> int:
    """Measures, prints and keeps."""
    if not shutil.which("wrk"):
        print("wrk is missing (apt-get install wrk)", file=sys.stderr)
        return 1
    seconds = float(os.environ.get("SECONDS_EACH") or 8)
    lengths = json.loads((_HERE / "lengths.json").read_text())["SST"]
    texts = draw_texts(read_vocabulary(PACKAGE), lengths, _NUM_TEXTS, _SEED)
    raw: list[dict[str, Any]] = []
    served: dict[int, list[dict[str, Any]]] = {size: [] for size in _SERVED}
    with tempfile.TemporaryDirectory() as directory, serve_ours("auto", Path(directory) / "log") as serving:
        for _ in range(_TURNS):
            raw.append(raw_rate(texts, seconds / _TURNS))
            for size, turns in served.items():
                turns.append(served_rate(serving, texts, size, seconds / _TURNS))
    engine = _mean_rate(raw)
    shares = {size: _mean_rate(turns) / engine for size, turns in served.items()}
    for size, share in shares.items():
        print(f"RESULT served_share {size} {_mean_rate(served[size]):.1f} {engine:.1f} {share:.3f}")
    run = describe_run("SST", texts, seconds, generators()) | {"command": "python benchmarks/served_share.py"}
    content = {"run": run, "raw": raw, "served": served, "share": shares}
    (_HERE / "served_share.json").write_text(json.dumps(content, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
