"""One server's figures, and the sweep that finds a peer's best settings."""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from peers.figures import highest_rate
from peers.load import GRPC_CONNECTIONS, LoadError, closed_loop, grpc_closed_loop, open_loop
from peers.processes import ServerFailed
from peers.servers import Peer, Serving, Setting
from peers.work import write_file

__all__ = [
    "FULL_SWEEP_S",
    "Figures",
    "Work",
    "WrongAnswers",
    "best_settings",
    "check_answers",
    "difference",
    "in_turns",
    "measure",
    "say",
    "sweep",
    "together",
]

_CONNECTIONS = {"http_c1": 1, "http_c32": 32, "http_c128": 128}
_LIMIT_MS = 50.0
_WARMUP_S = 1.0
# How often servers that are measured beside each other take turns, and the least of each.
_TURNS = 3
_SHORTEST_TURN_S = 2.0
_QUANTILES = ("p50_ms", "p90_ms", "p99_ms", "max_ms")
# From the closed loop's rate, where the search for the open loop's begins.
_OPEN_SHARE = 0.7
# A rate of the open loop needs no longer for its 99th percentile.
_LONGEST_PROBE_S = 5.0
# Part of the time of a measurement that a point of the sweep gets, and below which time the sweep is a short one.
_SWEEP_SHARE = 0.25
FULL_SWEEP_S = 8.0

_STARTED = time.monotonic()

Figures = dict[str, Any]


class WrongAnswers(Exception):
    """A server does not give the answers of the package."""


@dataclass(frozen=True)
class Work:
    """What every server is asked.

    reference: label and score of the first texts, by the float32 reference.
    seconds: of each measurement.
    """

    texts: Sequence[str]
    reference: Sequence[tuple[str, float]]
    seconds: float

    @contextmanager
    def requests(self, serving: Serving) -> Iterator[Path]:
        """A file of the requests of one server."""
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "requests"
            write_file([serving.request(text) for text in self.texts], path)
            yield path

    def octiles(self) -> list[str]:
        """A text for each gRPC connection: the middles of eight equal parts of all texts by length."""
        ordered = sorted(self.texts, key=lambda text: len(text.split()))
        return [ordered[(2 * part + 1) * len(ordered) // 16] for part in range(GRPC_CONNECTIONS)]


def check_answers(serving: Serving, work: Work, tolerance: float) -> float:
    """Asks the first texts one by one and all at once, so that they are batched, over HTTP and gRPC.

    Returns:
        The largest difference of a score.

    Raises:
        WrongAnswers: A label differs, or a score by more than the tolerance. A label may differ where the reference
            itself is within the tolerance of the other one.
    """
    texts = work.texts[: len(work.reference)]
    with ThreadPoolExecutor(len(texts)) as pool:
        rounds = [[serving.ask(text) for text in texts], list(pool.map(serving.ask, texts))]
    if serving.grpc:
        rounds.append([serving.grpc.read(serving.grpc.ask(serving.grpc.message(text))) for text in texts])
    return max(difference(found, work.reference, tolerance) for found in rounds)


def difference(found: Sequence[tuple[str, float]], expected: Sequence[tuple[str, float]], tolerance: float) -> float:
    """The largest difference of scores.

    Raises:
        WrongAnswers: As for `check_answers`.
    """
    largest = 0.0
    for place, ((label, score), (right, reference)) in enumerate(zip(found, expected, strict=True)):
        # Of two labels, the other one's score is what is left.
        gap = abs(score - reference) if label == right else abs(1 - score - reference)
        if gap > tolerance or (label != right and reference - 0.5 > tolerance):
            raise WrongAnswers(f"text {place} is {label} {score:.6f}, and should be {right} {reference:.6f}")
        largest = max(largest, gap)
    return largest


def measure(serving: Serving, work: Work, names: Sequence[str]) -> Figures:
    """The named closed loops over HTTP of a server that runs, with one warm-up for all of them."""
    figures: Figures = {}
    with work.requests(serving) as requests:
        closed_loop(serving.port, requests, 32, _WARMUP_S)
        for name in names:
            serving.settle()
            say(f"  {name}")
            figures[name] = _closed(serving, requests, _CONNECTIONS[name], work.seconds)
    return figures


def in_turns(servings: Sequence[Serving], work: Work, names: Sequence[str]) -> list[Figures]:
    """The named figures of servers that run beside each other: closed loops over HTTP, `grpc_8x16`, `open_loop`. What
    one of them does not offer is left out.

    Each is idle while another is measured. The time of a measurement is divided into turns, because a machine that is
    shared with others is a third faster in one minute than in the next. The search of the open loop is one turn, and
    begins at the rate of a closed loop of the names before it.
    """
    found: list[Figures] = [{} for _ in servings]
    with ExitStack() as files:
        requests = [files.enter_context(work.requests(serving)) for serving in servings]
        for name in names:
            if name == "grpc_8x16" and not (shutil.which("h2load") and all(serving.grpc for serving in servings)):
                continue
            turns = 1 if name == "open_loop" else _TURNS
            parts: list[list[Figures]] = [[] for _ in servings]
            for turn in range(turns):
                for serving, path, figures, mine in zip(servings, requests, found, parts, strict=True):
                    serving.settle()
                    say(f"  {name} of {serving.name}, {turn + 1} of {turns}")
                    mine.append(_turn(serving, path, work, name, figures))
            for figures, mine in zip(found, parts, strict=True):
                figures[name] = mine[0] if turns == 1 else together(mine)
    return found


def _turn(serving: Serving, requests: Path, work: Work, name: str, before: Figures) -> Figures:
    if name == "open_loop":
        known = before.get("http_c128") or before["http_c32"]
        return _open(serving, requests, work.seconds, known["requests_per_s"])
    seconds = max(work.seconds / _TURNS, _SHORTEST_TURN_S)
    if name == "grpc_8x16":
        return _grpc(serving, work, seconds)
    closed_loop(serving.port, requests, _CONNECTIONS[name], _WARMUP_S)
    return _closed(serving, requests, _CONNECTIONS[name], seconds)


def together(turns: Sequence[Figures]) -> Figures:
    """The figures of several turns of a closed loop: rates over all of their time, the middle one of the quantiles."""
    figures: Figures = {
        name: statistics.median(turn[name] for turn in turns) for name in turns[0] if name in _QUANTILES
    }
    requests, seconds = (sum(turn[name] for turn in turns) for name in ("requests", "seconds"))
    figures |= {"requests": requests, "seconds": seconds, "requests_per_s": requests / seconds}
    if "cpu_s" in turns[0]:
        cpu_s = sum(turn["cpu_s"] for turn in turns)
        figures |= {"cpu_s": cpu_s, "requests_per_cpu_s": requests / cpu_s if cpu_s else 0.0}
    return figures | {"turns": [turn["requests_per_s"] for turn in turns]}


def _closed(serving: Serving, requests: Path, connections: int, seconds: float) -> Figures:
    before = serving.started.cpu_s()
    found: Figures = dict(closed_loop(serving.port, requests, connections, seconds))
    cpu_s = serving.started.cpu_s() - before
    return found | {"cpu_s": cpu_s, "requests_per_cpu_s": found["requests"] / cpu_s if cpu_s else 0.0}


def _grpc(serving: Serving, work: Work, seconds: float) -> Figures:
    door = serving.grpc
    assert door is not None
    messages = [door.message(text) for text in work.octiles()]
    answers = [door.ask(message) for message in messages]
    grpc_closed_loop(door.port, door.path, messages, answers, _WARMUP_S)
    return dict(grpc_closed_loop(door.port, door.path, messages, answers, seconds))


def _open(serving: Serving, requests: Path, seconds: float, closed_rate: float) -> Figures:
    """The highest Poisson rate at which 99 in 100 requests take 50 ms at most.

    A rate that fails by little is tried once more, so that one disturbance from outside does not decide.
    """
    probes: list[Figures] = []

    def holds(rate: float) -> bool:
        for _ in range(2):
            found = open_loop(serving.port, requests, rate, min(seconds, _LONGEST_PROBE_S), _LIMIT_MS)
            probes.append(found)
            if found["held"]:
                return True
            serving.settle()
            if found["stopped"]:
                return False
        return False

    rate = highest_rate(holds, guess=_OPEN_SHARE * closed_rate)
    return {"rate": rate, "limit_ms": _LIMIT_MS, "probes": probes}


# The sweep


def sweep(
    peer: Peer,
    directory: Path,
    plan: str,
    work: Work,
    names: Sequence[str],
    tolerance: float,
    forms: Sequence[str],
) -> list[Figures]:
    """Tries settings: each delay, then each number of workers at the best delay, then each form at the best of both.
    In a short run the first two delays only.

    Args:
        plan: As in `Peer.serving`.
        names: Of closed loops; the last one decides what is best on the way.
        forms: Of the peer's.

    Returns:
        `setting` and `figures`, or `error`, of each point.
    """
    brief = Work(work.texts, work.reference, max(round(_SWEEP_SHARE * work.seconds), 1))
    points: list[Figures] = []

    def attempt(setting: Setting) -> None:
        if any(point["setting"] == asdict(setting) for point in points):
            return
        say(f"{peer.name}, {plan or 'plain'}: {setting}")
        try:
            with peer.serving(directory, setting, plan) as serving:
                largest = check_answers(serving, brief, tolerance)
                figures = measure(serving, brief, names)
            points.append({"setting": asdict(setting), "difference": largest, "figures": figures})
        except (ServerFailed, LoadError, OSError) as error:
            points.append({"setting": asdict(setting), "error": str(error)[-500:]})

    delays = peer.delays_ms if work.seconds >= FULL_SWEEP_S else peer.delays_ms[:2]
    best = Setting(delays[0], peer.workers[0], forms[0])
    steps: tuple[Callable[[Setting], list[Setting]], ...] = (
        lambda now: [Setting(delay, now.workers, now.form) for delay in delays],
        lambda now: [Setting(now.delay_ms, workers, now.form) for workers in peer.workers],
        lambda now: [Setting(now.delay_ms, now.workers, form) for form in forms],
    )
    for step in steps:
        for setting in step(best):
            attempt(setting)
        if not any("figures" in point for point in points):
            raise ServerFailed(str(points[0]["error"]))
        best = best_settings(points, names)[names[-1]]
    return points


def best_settings(points: Sequence[Figures], names: Sequence[str]) -> dict[str, Setting]:
    """For each measure the setting of the sweep that does best: the least median at one connection, else the highest
    rate. Raises ValueError if no point has figures."""

    def gain(point: Figures, name: str) -> float:
        figures = point["figures"][name]
        return -float(figures["p50_ms"]) if name == "http_c1" else float(figures["requests_per_s"])

    measured = [point for point in points if "figures" in point]
    found = {}
    for name in names:
        best = max(measured, key=lambda point: gain(point, name))
        found[name] = Setting(**best["setting"])
    return found


def say(what: str) -> None:
    """Progress, apart from the results."""
    print(f"{time.monotonic() - _STARTED:6.1f} s  {what}", file=sys.stderr, flush=True)
