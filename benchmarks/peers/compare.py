"""Ours against one peer: the arms, and the lines of the table."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from peers import environments, processes
from peers.catalogue import PEERS
from peers.figures import MEASURES, result_line
from peers.measure import FULL_SWEEP_S, Figures, Work, best_settings, check_answers, in_turns, say, sweep
from peers.servers import Peer, Serving, Setting, serve_ours
from peers.work import http_get

__all__ = ["Compared", "Ours", "compare", "look_at_ours"]

# Largest difference of a score from the float32 reference.
_FLOAT32_TOLERANCE = 1e-3
_REDUCED_TOLERANCE = 2e-2
_SWEPT = ("http_c1", "http_c32", "http_c128")


@dataclass(frozen=True)
class Ours:
    """What our server says of itself with its default settings.

    difference: the largest of a score from the float32 reference.
    """

    plan: Mapping[str, Any]
    difference: float


@dataclass(frozen=True)
class Pair:
    """Figures of both, taken in turns.

    plan: ours.
    """

    plan: Mapping[str, Any]
    ours: Figures
    theirs: Figures


@dataclass(frozen=True)
class Compared:
    """What came of one peer.

    pairs: `in_force`, our default settings against the plain function, `float32` and `reference`, our fastest float32
        and torch's own against it, and `same_engine`.
    rows: measure → ours, theirs.
    missing: measure → why there is no figure.
    """

    versions: Mapping[str, str]
    sweeps: Mapping[str, list[Figures]]
    settings: Mapping[str, Mapping[str, object]]
    pairs: Mapping[str, Pair]
    rows: Mapping[str, tuple[float, float]]
    missing: Mapping[str, str] = field(default_factory=dict)

    def lines(self, peer: str) -> Iterator[str]:
        """The table, in its order."""
        for name in MEASURES:
            if name in self.rows:
                yield result_line(peer, name, *self.rows[name])
            else:
                yield f"NO RESULT {peer} {name}: {self.missing[name]}"


def look_at_ours(work: Work) -> Ours:
    """Starts our server, and checks its answers."""
    say("conveyor")
    with serve_ours("auto", _log()) as serving:
        return Ours(serving.plan, check_answers(serving, work, _tolerance(serving)))


def compare(name: str, ours: Ours, work: Work) -> Compared:
    """Sets a peer up, finds its best settings, and measures it with them in turns with ours.

    Raises:
        NotInstallable, ServerFailed, LoadError, WrongAnswers: It gives no results.
    """
    peer = PEERS[name]
    directory = environments.install(name)
    versions = environments.versions(directory, peer.package)
    sweeps = {"plain": sweep(peer, directory, "", work, _SWEPT, _FLOAT32_TOLERANCE, peer.forms)}
    best = best_settings(sweeps["plain"], _SWEPT)
    form, plan = best["http_c128"].form, f"{ours.plan['executor']} {ours.plan['precision']}"
    sweeps["engine"] = sweep(peer, directory, plan, work, ["http_c128"], _REDUCED_TOLERANCE, [form])
    engine = best_settings(sweeps["engine"], ["http_c128"])["http_c128"]
    pairs = _plain(peer, directory, work, best)
    say(f"{name}, {plan}: measured with {engine}")
    with peer.serving(directory, engine, plan) as theirs:
        if peer.about:
            about = json.loads(processes.ask(theirs.port, http_get(theirs.port, peer.about)))
            versions["server"] = about["version"]
        pairs["same_engine"] = _pair(theirs, "auto", work, ["http_c128"])
    rows, missing = _rows(peer, pairs)
    settings = {key: asdict(setting) for key, setting in best.items()} | {"same_engine": asdict(engine)}
    return Compared(versions, sweeps, settings, pairs, rows, missing)


def _plain(peer: Peer, directory: Path, work: Work, best: Mapping[str, Setting]) -> dict[str, Pair]:
    """Each measure at the peer's setting that is best for it.

    The open loop, which is not swept, has as many requests in flight as something between 32 and 128 connections: it
    is tried at the best settings of both, in a short run at that of 128 alone.
    """
    wanted: dict[Setting, list[str]] = {}
    for measured in _SWEPT:
        wanted.setdefault(best[measured], []).append(measured)
    wanted[best["http_c128"]] += ["grpc_8x16", "open_loop"]
    if work.seconds >= FULL_SWEEP_S and best["http_c32"] != best["http_c128"]:
        wanted[best["http_c32"]].append("open_loop")
    pairs: dict[str, Pair] = {}
    plan: Mapping[str, Any] = {}
    ours: Figures = {}
    theirs: Figures = {}
    for setting, names in wanted.items():
        say(f"{peer.name}, plain: measured with {setting}")
        with peer.serving(directory, setting) as serving:
            pair = _pair(serving, "auto", work, names)
            if setting == best["http_c128"]:
                for arm, precision in (("float32", "auto-float32"), ("reference", "float32")):
                    pairs[arm] = _pair(serving, precision, work, ["http_c128"])
        plan = pair.plan
        for name, found in pair.theirs.items():
            if name != "open_loop" or name not in theirs or found["rate"] > theirs[name]["rate"]:
                ours[name], theirs[name] = pair.ours[name], found
    return {"in_force": Pair(plan, ours, theirs), **pairs}


def _pair(theirs: Serving, precision: str, work: Work, names: Sequence[str]) -> Pair:
    with serve_ours(precision, _log()) as ours:
        check_answers(ours, work, _tolerance(ours))
        return Pair(ours.plan, *in_turns((ours, theirs), work, names))


def _tolerance(ours: Serving) -> float:
    return _FLOAT32_TOLERANCE if ours.plan.get("precision") == "float32" else _REDUCED_TOLERANCE


def _log() -> Path:
    return environments.environments() / "conveyor.log"


def _rows(peer: Peer, pairs: Mapping[str, Pair]) -> tuple[dict[str, tuple[float, float]], dict[str, str]]:
    def row(arm: str, measure: str, figure: str) -> tuple[float, float]:
        return pairs[arm].ours[measure][figure], pairs[arm].theirs[measure][figure]

    rows = {
        "http_c1_p50": row("in_force", "http_c1", "p50_ms"),
        "http_c32": row("in_force", "http_c32", "requests_per_s"),
        "http_c128": row("in_force", "http_c128", "requests_per_s"),
        "http_c128_float32": row("float32", "http_c128", "requests_per_s"),
        "http_c128_same_engine": row("same_engine", "http_c128", "requests_per_s"),
        "open_loop_p99_50ms": row("in_force", "open_loop", "rate"),
        "per_cpu_second": row("in_force", "http_c128", "requests_per_cpu_s"),
    }
    missing = {}
    if "grpc_8x16" in pairs["in_force"].theirs:
        rows["grpc_8x16"] = row("in_force", "grpc_8x16", "requests_per_s")
    else:
        why = f"{peer.name} serves no gRPC of its own" if peer.raw_grpc is None else "h2load is not on this machine"
        missing["grpc_8x16"] = why
    return rows, missing
