"""Streaming sessions, measured in one run beside the roof of each measure: `python benchmarks/sessions.py`.

Everything is of the shipped `forecast-electricity` on the CPU. The engine's measures run in this process
(`session_engine.py`), those of the doors against a server of its own (`session_doors.py`). `SECONDS_EACH` sets the
seconds of each measure at the doors (default 5), `SESSIONS` the sessions whose memory is measured (default 100 000).

Prints `RESULT sessions <measure> <figure>` lines and keeps everything in `sessions.json`, or in the file given by
`--out`.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "service")]

import session_doors  # noqa: E402
import session_engine  # noqa: E402
from peers.results import describe_machine  # noqa: E402

_IN_STEP = 256
_LIVE = 10_000
_RESTARTED = 2_000


def measures(seconds: float, memory_sessions: int) -> Mapping[str, Callable[[], dict[str, Any]]]:
    """Every measure by its name; those of memory come first, while this process is small."""
    return {
        "memory": lambda: session_engine.memory_per_session(memory_sessions),
        "history": session_engine.device_seconds_by_history,
        "roof": lambda: session_engine.steps_against_roof(_IN_STEP),
        "one_shot": session_engine.one_shot_against_append,
        "many_sessions": lambda: session_doors.many_sessions(seconds),
        "grpc_stream": lambda: session_doors.stream_over_echo(seconds),
        "live_streams": lambda: session_doors.live_streams(_LIVE, seconds),
        "restart": lambda: session_doors.restart(_RESTARTED),
    }


def main() -> None:
    """Measures all, or what is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "sessions.json")
    parser.add_argument("--only", nargs="*", help="names of measures")
    parser.add_argument("--echo", action="store_true", help="serve the bare gRPC stream (used by the script itself)")
    options = parser.parse_args()
    if options.echo:
        session_doors.echo_for_ever()
        return
    seconds = float(os.environ.get("SECONDS_EACH", "5"))
    chosen = measures(seconds, int(os.environ.get("SESSIONS", "100000")))
    results: dict[str, Any] = {
        "command": " ".join(["python benchmarks/sessions.py", *sys.argv[1:]]),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "grpcio", "uvicorn", "msgspec")},
        "seconds_each": seconds,
    }
    for name in options.only or chosen:
        results[name] = chosen[name]()
        for figure, value in results[name].items():
            print("RESULT sessions", name, figure, json.dumps(value), flush=True)
        options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
