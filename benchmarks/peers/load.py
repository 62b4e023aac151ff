"""The load generators: wrk and h2load, each run as a process of its own, and our own client for what they cannot do."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peers.figures import percentile
from peers.oip import grpc_frame

__all__ = ["LoadError", "closed_loop", "generators", "grpc_closed_loop", "missing", "open_loop", "read_h2load"]

_HERE = Path(__file__).parent
GRPC_CONNECTIONS, GRPC_STREAMS = 8, 16


class LoadError(Exception):
    """A load generator failed, or the answers were not those of the work."""


def generators() -> dict[str, str]:
    """What there is to put load on a server, with versions."""
    found = {"open loop": "peers.client"}
    wrk = _first_line(["wrk", "-v"])
    found["closed loop"] = wrk.split("[")[0].strip() if wrk else "peers.client, because wrk is not on this machine"
    h2load = _first_line(["h2load", "--version"])
    if h2load:
        found["gRPC"] = h2load
    return found


def missing() -> list[str]:
    """What is not on this machine, and what that means."""
    notes = []
    if not shutil.which("wrk"):
        notes.append("wrk is missing (apt-get install wrk): our own client drives both sides of the closed loop")
    if not shutil.which("h2load"):
        notes.append("h2load is missing (apt-get install nghttp2-client): gRPC is not measured")
    return notes


def closed_loop(port: int, requests: Path, connections: int, seconds: float) -> dict[str, float]:
    """Figures of so many connections that each ask again once they are answered; wrk with one thread, or our client.

    Returns:
        requests_per_s, p50_ms, p90_ms, p99_ms, max_ms, requests, seconds.

    Raises:
        LoadError: A request in a hundred or more failed.
    """
    if shutil.which("wrk"):
        command = ["wrk", "-t1", f"-c{connections}", f"-d{_whole(seconds)}s", "--timeout", "10s"]
        command += ["-s", str(_HERE / "requests.lua"), f"http://127.0.0.1:{port}/"]
        output = _run(command, seconds + 30, {"PEER_REQUESTS": str(requests)})
        found = re.search(r"^FIGURES (.*)$", output, re.MULTILINE)
        if not found:
            raise LoadError(f"wrk gave no figures: {output}")
        figures = json.loads(found[1])
    else:
        figures = _client(port, requests, seconds, "--connections", str(connections))
    if figures["requests"] == 0 or figures["errors"] > figures["requests"] / 100:
        raise LoadError(f"{figures['errors']} of {figures['requests']} requests failed at {connections} connections")
    return {"requests_per_s": figures["requests"] / figures["seconds"], **figures}


def open_loop(port: int, requests: Path, rate: float, seconds: float, limit_ms: float, seed: int = 0) -> dict[str, Any]:
    """Figures of Poisson arrivals of one rate; see `client.OpenLoop`."""
    return _client(port, requests, seconds, "--rate", str(rate), "--limit-ms", str(limit_ms), "--seed", str(seed))


def grpc_closed_loop(
    port: int, path: str, messages: Sequence[bytes], answers: Sequence[bytes], seconds: float
) -> dict[str, float]:
    """Unary calls over 8 connections with 16 at once on each: 8 processes of h2load, each with a message of its own,
    because one process sends one body only.

    Args:
        messages: One for each connection.
        answers: What the server answers to each, by a gRPC client. An error has a body of another size.

    Raises:
        LoadError: A call in a hundred or more failed.
    """
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        processes = []
        for index, message in enumerate(messages):
            body = directory / f"body.{index}"
            body.write_bytes(grpc_frame(message))
            command = ["h2load", "-c1", f"-m{GRPC_STREAMS}", f"-D{_whole(seconds)}", "-d", str(body)]
            command += ["-H", "content-type: application/grpc", "-H", "te: trailers"]
            command += [f"--log-file={directory / f'log.{index}'}", f"http://127.0.0.1:{port}{path}"]
            processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
        try:
            outputs = [process.communicate(timeout=seconds + 30)[0] for process in processes]
        finally:
            for process in processes:
                process.kill()
        calls = rate = 0.0
        for output, answer in zip(outputs, answers, strict=True):
            done, per_s = read_h2load(output, len(grpc_frame(answer)))
            calls, rate = calls + done, rate + per_s
        times = [
            float(line.split("\t")[2]) / 1000
            for index in range(len(messages))
            for line in (directory / f"log.{index}").read_text().splitlines()
        ]
    figures = {f"p{rank}_ms": percentile(times, rank) for rank in (50, 90, 99)}
    return {"requests_per_s": rate, **figures, "requests": calls, "seconds": _whole(seconds)}


def read_h2load(output: str, answer_bytes: int) -> tuple[int, float]:
    """Calls answered with what they should be, and how many a second.

    Raises:
        LoadError: Some were not.
    """
    rate = re.search(r"^finished in .*?, ([\d.]+) req/s", output, re.MULTILINE)
    counts = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", output)
    data = re.search(r"^traffic: .*\((\d+)\) data$", output, re.MULTILINE)
    if not rate or not counts or not data:
        raise LoadError(f"h2load gave no figures: {output}")
    succeeded, failed = int(counts[1]), sum(map(int, counts.groups()[1:]))
    # HTTP/2 says 200 also where gRPC says in its trailers that the call failed; such an answer has no message.
    per_call = int(data[1]) / max(succeeded, 1)
    if succeeded == 0 or failed > succeeded / 100 or abs(per_call - answer_bytes) > 0.02 * answer_bytes:
        raise LoadError(f"calls failed: {counts[0]}; {per_call:.1f} bytes an answer where {answer_bytes} were expected")
    return succeeded, float(rate[1])


def _client(port: int, requests: Path, seconds: float, *load: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "peers.client", "--port", str(port), "--requests", str(requests)]
    output = _run([*command, "--seconds", str(seconds), *load], seconds + 60, {"PYTHONPATH": str(_HERE.parent)})
    figures: dict[str, Any] = json.loads(output)
    return figures


def _run(command: Sequence[str], timeout_s: float, environment: dict[str, str]) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout_s, env=os.environ | environment, check=False
    )
    if done.returncode:
        raise LoadError(f"{' '.join(command)} failed: {done.stdout}{done.stderr}")
    return done.stdout


def _whole(seconds: float) -> int:
    return max(math.ceil(seconds), 1)


def _first_line(command: Sequence[str]) -> str:
    if not shutil.which(command[0]):
        return ""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).splitlines()[0]
