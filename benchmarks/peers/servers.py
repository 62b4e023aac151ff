"""Servers that run: ours, and what every peer has in common. The peers themselves are in `catalogue.py`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc

from conveyor.api.rpc.proto.conveyor.v1 import conveyor_pb2 as pb
from peers import oip, processes
from peers.processes import Started
from peers.work import http_get, http_request

__all__ = ["HERE", "PACKAGE", "Peer", "Serving", "Setting", "reference", "serve_ours"]

HERE = Path(__file__).parent.absolute()
ROOT = HERE.parents[1]
PACKAGE = ROOT / "models" / "sentiment-en" / "1"
BATCH_ROWS = 64
_READY_S = 90.0
_CORES = len(os.sched_getaffinity(0))
_PROBE = "a fine film"


@dataclass(frozen=True)
class Setting:
    """What is swept.

    delay_ms: how long a batch waits for company; for BentoML the latency budget of its batcher.
    workers: processes that compute (instances, replicas).
    form: how the text travels over HTTP.
    """

    delay_ms: float = 0.0
    workers: int = 1
    form: str = "json"

    def __str__(self) -> str:
        return f"delay {self.delay_ms:g} ms, {self.workers} x, {self.form}"


@dataclass(frozen=True)
class GrpcDoor:
    """How a server is asked over gRPC."""

    port: int
    path: str
    message: Callable[[str], bytes]
    read: Callable[[bytes], tuple[str, float]]

    def ask(self, content: bytes) -> bytes:
        """The answer to a message; raises grpc.RpcError."""
        with grpc.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(self.path)
            return call(content, timeout=30)


@dataclass(frozen=True)
class Serving:
    """A server that answers."""

    name: str
    started: Started
    port: int
    request: Callable[[str], bytes]
    read: Callable[[bytes], tuple[str, float]]
    grpc: GrpcDoor | None
    plan: Mapping[str, Any] = field(default_factory=dict)

    def ask(self, text: str) -> tuple[str, float]:
        """Label and score over HTTP; raises OSError."""
        return self.read(processes.ask(self.port, self.request(text)))

    def settle(self) -> None:
        """Waits until nothing is left to do."""
        self.started.check()
        processes.settle(self.port, self.request(_PROBE))


@dataclass(frozen=True)
class Peer:
    """A server beside ours.

    package: its name on the package index.
    command: from the environment's `bin` and the ports (HTTP, gRPC, metrics) to the command and its directory.
    request: from the port, the form and a text to a whole HTTP request.
    raw_grpc: whether its tensors travel raw over the gRPC of the Open Inference Protocol; None if it has none.
    about: a path whose answer is an object with the server's `version`, if there is one.
    delays_ms, workers, forms: its settings that are swept; the first of each is where the sweep begins.
    """

    name: str
    package: str
    command: Callable[[Path, Sequence[int], Setting, Path], Sequence[str]]
    request: Callable[[int, str, str], bytes]
    read: Callable[[bytes], tuple[str, float]]
    delays_ms: Sequence[float] = (0, 2, 5, 20)
    workers: Sequence[int] = tuple(sorted({1, 2, max(_CORES // 2, 1), _CORES}))
    forms: Sequence[str] = ("json",)
    raw_grpc: bool | None = None
    about: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)

    @contextmanager
    def serving(self, directory: Path, setting: Setting, plan: str = "") -> Iterator[Serving]:
        """Runs it until the block ends.

        Args:
            directory: Its virtual environment.
            plan: What our engine function is executed by, as `torch float32`; the plain function if empty.

        Raises:
            ServerFailed: It does not start.
        """
        ports = processes.free_ports(3)
        run = directory / "run"
        shutil.rmtree(run, ignore_errors=True)
        run.mkdir(parents=True)
        command = self.command(directory, ports, setting, run)
        environment = _environment(directory) | {
            "PYTHONPATH": f"{HERE / 'apps'}:{ROOT / 'service'}",
            "PEER_PACKAGE": str(PACKAGE),
            # As `apps/served.py` sets it for torch: more threads make so small a recurrence slower.
            "OMP_NUM_THREADS": "1",
            "PEER_FUNCTION": "engine" if plan else "plain",
            "PEER_PLAN": plan,
            "PEER_PORT": str(ports[0]),
            "PEER_DELAY_MS": str(setting.delay_ms),
            "PEER_WORKERS": str(setting.workers),
            "PEER_ROWS": str(BATCH_ROWS),
            **{name: value.format(env=directory, **python_of(directory)) for name, value in self.environment.items()},
        }
        door = None
        if self.raw_grpc is not None:
            raw = self.raw_grpc
            door = GrpcDoor(
                ports[1],
                "/inference.GRPCInferenceService/ModelInfer",
                lambda text: oip.message(text, "sentiment", raw=raw),
                oip.read_message,
            )
        try:
            with processes.start(command, run, directory / "server.log", environment) as started:
                request = partial(self.request, ports[0], setting.form)
                serving = Serving(self.name, started, ports[0], request, self.read, door)
                processes.wait_ready(started, ports[0], serving.request(_PROBE), _READY_S)
                yield serving
        finally:
            for left in Path("/dev/shm").glob(f"{shared_memory(ports[0])}*"):
                left.unlink()


@contextmanager
def serve_ours(precision: str, log: Path) -> Iterator[Serving]:
    """Runs `conveyor serve` on the shipped models with its default settings.

    Raises:
        ServerFailed: It does not start.
    """
    http, rpc, metrics = processes.free_ports(3)
    command = [str(Path(sys.executable).parent / "conveyor"), "serve", "--precision", precision]
    command += ["--http-port", str(http), "--grpc-port", str(rpc), "--metrics-port", str(metrics)]
    environment = _environment(Path(sys.executable).parents[1]) | {"PYTHONPATH": str(ROOT / "service")}
    door = GrpcDoor(rpc, "/conveyor.v1.Conveyor/Sentiment", _our_message, _read_our_message)
    with processes.start(command, ROOT, log, environment) as started:
        processes.wait_ready(started, http, http_get(http, "/health/ready"), _READY_S)
        plan = json.loads(processes.ask(http, http_get(http, "/v1/models/sentiment-en"))).get("plan", {})
        yield Serving("conveyor", started, http, lambda text: _our_request(http, text), _read_ours, door, plan)


def reference(texts: Sequence[str]) -> list[tuple[str, float]]:
    """Label and score of each text by our float32 reference, offline; raises ServerFailed."""
    command = [str(Path(sys.executable).parent / "conveyor"), "infer", "sentiment-en", "--precision", "float32"]
    lines = "".join(json.dumps(text) + "\n" for text in texts)
    environment = _environment(Path(sys.executable).parents[1]) | {"PYTHONPATH": str(ROOT / "service")}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, input=lines, capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode:
        raise processes.ServerFailed(f"conveyor infer failed: {done.stderr[-2000:]}")
    results = [json.loads(line) for line in done.stdout.splitlines()]
    return [(result["label"], result["score"]) for result in results]


def _environment(directory: Path) -> dict[str, str]:
    """The environment of a server: none of our own settings, and its own programs first."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CONVEYOR_", "PEER_", "PYTHON"))}
    return kept | {"PATH": f"{directory / 'bin'}:{os.environ.get('PATH', '')}"}


def _our_request(port: int, text: str) -> bytes:
    return http_request(port, "/v1/sentiment", as_json({"inputs": text}))


def _read_ours(body: bytes) -> tuple[str, float]:
    (result,) = json.loads(body)["results"]
    return result["label"], result["score"]


def _our_message(text: str) -> bytes:
    return bytes(pb.SentimentRequest(inputs=[text]).SerializeToString())


def _read_our_message(content: bytes) -> tuple[str, float]:
    (result,) = pb.SentimentResponse.FromString(content).results
    return result.label, result.score


def as_json(content: object) -> bytes:
    """Without white space, in UTF-8."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def shared_memory(port: int) -> str:
    """What the names of Triton's shared memory begin with."""
    return f"conveyor-peer-{port}-"


def python_of(directory: Path) -> dict[str, str]:
    """Of an environment: where its packages lie, its base and its version."""
    code = (
        "import json, sys, sysconfig\n"
        "print(json.dumps({'site': sysconfig.get_paths()['purelib'], 'base': sys.base_prefix,\n"
        " 'version': '%d.%d' % sys.version_info[:2]}))"
    )
    done = subprocess.run([str(directory / "bin" / "python"), "-c", code], capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found
