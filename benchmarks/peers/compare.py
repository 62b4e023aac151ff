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
from peers.measure import ALL, FULL_SWEEP_S, Figures, Work, best_settings, check_answers, measure, say, sweep
from peers.servers import Peer, Setting, serve_ours
from peers.work import http_get

__all__ = ["Compared", "Ours", "compare", "measure_ours"]

# Largest difference of a score from the float32 reference.
_FLOAT32_TOLERANCE = 1e-3
_REDUCED_TOLERANCE = 2e-2
_SWEPT = ("http_c1", "http_c32", "http_c128")


@dataclass(frozen=True)
class Ours:
    """Our figures: of the plan in force, of the fastest float32, and of the float32 reference, which is torch's own."""

    plan: Mapping[str, Any]
    in_force: Figures
    float32: Figures
    reference: Figures
    differences: Mapping[str, float]


@dataclass(frozen=True)
class Compared:
    """What came of one peer.

    rows: measure → ours, theirs.
    missing: measure → why there is no figure.
    """

    versions: Mapping[str, str]
    sweeps: Mapping[str, list[Figures]]
    settings: Mapping[str, Mapping[str, object]]
    figures: Figures
    rows: Mapping[str, tuple[float, float]]
    missing: Mapping[str, str] = field(default_factory=dict)

    def lines(self, peer: str) -> Iterator[str]:
        """The table, in its order."""
        for name in MEASURES:
            if name in self.rows:
                yield result_line(peer, name, *self.rows[name])
            else:
                yield f"NO RESULT {peer} {name}: {self.missing[name]}"


def measure_ours(work: Work, directory: Path) -> Ours:
    """Our server with its default settings, and with `--precision auto-float32` and `float32`.

    Args:
        directory: For logs.
    """
    say("conveyor, plan in force")
    with serve_ours("auto", directory / "conveyor.log") as serving:
        plan = serving.plan
        tolerance = _FLOAT32_TOLERANCE if plan.get("precision") == "float32" else _REDUCED_TOLERANCE
        differences = {"in_force": check_answers(serving, work, tolerance)}
        in_force = measure(serving, work, ALL)
    figures = []
    for precision in ("auto-float32", "float32"):
        say(f"conveyor, {precision}")
        with serve_ours(precision, directory / "conveyor.log") as serving:
            differences[precision] = check_answers(serving, work, _FLOAT32_TOLERANCE)
            figures.append({"plan": dict(serving.plan), **measure(serving, work, ["http_c128"])})
    return Ours(plan, in_force, *figures, differences)


def compare(name: str, ours: Ours, work: Work) -> Compared:
    """Sets a peer up, finds its best settings, and measures it with them.

    Raises:
        NotInstallable, ServerFailed, LoadError, WrongAnswers: It gives no results.
    """
    peer = PEERS[name]
    directory = environments.install(name)
    versions = environments.versions(directory, peer.package)
    sweeps = {"plain": sweep(peer, directory, "", work, _SWEPT, _FLOAT32_TOLERANCE, peer.forms)}
    best = best_settings(sweeps["plain"], _SWEPT)
    figures = _plain(peer, directory, work, best, sweeps["plain"])
    form, plan = best["http_c128"].form, f"{ours.plan['executor']} {ours.plan['precision']}"
    sweeps["engine"] = sweep(peer, directory, plan, work, ["http_c128"], _REDUCED_TOLERANCE, [form])
    engine = best_settings(sweeps["engine"], ["http_c128"])["http_c128"]
    say(f"{name}, {plan}: measured with {engine}")
    with peer.serving(directory, engine, plan) as serving:
        if peer.about:
            about = json.loads(processes.ask(serving.port, http_get(serving.port, peer.about)))
            versions["server"] = about["version"]
        figures["same_engine"] = measure(serving, work, ["http_c128"])["http_c128"]
    rows, missing = _rows(peer, ours, figures)
    settings = {key: asdict(setting) for key, setting in best.items()} | {"same_engine": asdict(engine)}
    return Compared(versions, sweeps, settings, figures, rows, missing)


def _plain(peer: Peer, directory: Path, work: Work, best: Mapping[str, Setting], points: Sequence[Figures]) -> Figures:
    """Each measure at the setting that is best for it.

    The open loop, which is not swept, has as many requests in flight as something between 32 and 128 connections: it
    is tried at the best settings of both, in a short run at that of 32 alone.
    """
    wanted: dict[Setting, list[str]] = {}
    for measured in _SWEPT:
        wanted.setdefault(best[measured], []).append(measured)
    wanted[best["http_c128"]].append("grpc_8x16")
    for setting in {best["http_c32"]: None} | ({best["http_c128"]: None} if work.seconds >= FULL_SWEEP_S else {}):
        wanted[setting].append("open_loop")
    figures: Figures = {}
    for setting, names in wanted.items():
        say(f"{peer.name}, plain: measured with {setting}")
        point = next(point for point in points if point["setting"] == asdict(setting))
        rate = point["figures"]["http_c128"]["requests_per_s"]
        with peer.serving(directory, setting) as serving:
            found = measure(serving, work, names, closed_rate=rate)
        if "open_loop" in found and "open_loop" in figures:
            found["open_loop"] = max(found["open_loop"], figures["open_loop"], key=lambda figure: figure["rate"])
        figures |= found
    return figures


def _rows(peer: Peer, ours: Ours, theirs: Figures) -> tuple[dict[str, tuple[float, float]], dict[str, str]]:
    mine = ours.in_force
    rows = {
        "http_c1_p50": (mine["http_c1"]["p50_ms"], theirs["http_c1"]["p50_ms"]),
        "http_c32": (mine["http_c32"]["requests_per_s"], theirs["http_c32"]["requests_per_s"]),
        "http_c128": (mine["http_c128"]["requests_per_s"], theirs["http_c128"]["requests_per_s"]),
        "http_c128_float32": (
            ours.float32["http_c128"]["requests_per_s"],
            theirs["http_c128"]["requests_per_s"],
        ),
        "http_c128_same_engine": (
            mine["http_c128"]["requests_per_s"],
            theirs["same_engine"]["requests_per_s"],
        ),
        "open_loop_p99_50ms": (mine["open_loop"]["rate"], theirs["open_loop"]["rate"]),
        "per_cpu_second": (
            mine["http_c128"]["requests_per_cpu_s"],
            theirs["http_c128"]["requests_per_cpu_s"],
        ),
    }
    missing = {}
    if "grpc_8x16" in mine and "grpc_8x16" in theirs:
        rows["grpc_8x16"] = (mine["grpc_8x16"]["requests_per_s"], theirs["grpc_8x16"]["requests_per_s"])
    else:
        why = f"{peer.name} serves no gRPC of its own" if peer.raw_grpc is None else "h2load is not on this machine"
        missing["grpc_8x16"] = why
    return rows, missing
