"""The file of results: what was measured, with what, where and when."""

from __future__ import annotations

import datetime
import json
import math
import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from peers.compare import Compared, Ours
from peers.figures import ratio

__all__ = ["describe_machine", "describe_run", "keep"]


def describe_machine() -> dict[str, Any]:
    """Model, cores, memory and system."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    cpu = re.search(r"^model name\s*:\s*(.+)$", info, re.MULTILINE)
    flags = re.search(r"^flags\s*:\s*(.+)$", info, re.MULTILINE)
    wide = [flag for flag in (flags[1].split() if flags else []) if flag.startswith(("avx", "amx"))]
    return {
        "cpu": cpu[1] if cpu else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "vector": wide,
    }


def describe_run(lengths: str, texts: Sequence[str], seconds: float, generators: Mapping[str, str]) -> dict[str, Any]:
    """What holds for all peers of one run."""
    return {
        "command": " ".join(["python -m peers", *sys.argv[1:]]),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "load_average": os.getloadavg()[0],
        "machine": describe_machine(),
        "python": f"{sys.version} in {sys.base_prefix}",
        "seconds_each": seconds,
        "texts": {
            "count": len(texts),
            "lengths": lengths,
            "mean_words": sum(len(text.split()) for text in texts) / len(texts),
        },
        "load_generators": dict(generators),
    }


def keep(path: Path, peer: str, run: Mapping[str, Any], ours: Ours, compared: Compared) -> None:
    """Puts a peer's results into the file, in the place of earlier ones of that peer."""
    content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    rows = {
        name: {"ours": mine, "theirs": theirs, "ratio": ratio(mine, theirs)}
        for name, (mine, theirs) in compared.rows.items()
    }
    content[peer] = {
        "results": rows,
        "run": run,
        **{key: value for key, value in asdict(compared).items() if key != "rows"},
        "ours": asdict(ours),
    }
    # Complete or not at all: the run may be interrupted here too.
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps(_finite(content), indent=1) + "\n")
    draft.replace(path)


def _finite(value: Any) -> Any:
    """JSON has no infinity: a latency of what was never answered is null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return round(value, 4) if isinstance(value, float) else value
