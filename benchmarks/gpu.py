"""What a GPU is worth to Conveyor, in one command and under 8 minutes: `python benchmarks/gpu.py`.

exactness   the tests marked `gpu`, on the device.
engine      rows per second of our executor, in each precision the device has, against `torch.nn.LSTM` with the same
            weights' shapes and against the roof: operations counted over the rate of a matrix product of the same
            run. A small model (the shipped `sentiment-en`, 128 units) and a large one (2 layers of 1024, 1 000 steps).
served      the highest Poisson rate of single texts within p99 ≤ 50 ms, with 1, 2, 4 and 8 front ends.

Our executor is timed from arrays on the host to arrays on the host, `torch.nn.LSTM` on the device alone.
Needs torch and numpy. A part that lacks a package is left out, with the reason in the results, which go to
`$OUT/gpu.json`, or beside this file without `OUT`. `--device cpu --small` runs the whole logic at small size.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent.absolute()
ROOT = HERE.parent
sys.path[:0] = [str(ROOT / "service"), str(HERE)]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from peers import load, processes  # noqa: E402
from peers.figures import highest_rate  # noqa: E402
from peers.work import draw_texts, http_get, http_request, read_vocabulary, write_file  # noqa: E402

PACKAGE = ROOT / "models" / "sentiment-en" / "1"
LIMIT_MS = 50.0
EXACTNESS_TIMEOUT_S = 150
READY_S = 120
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

Figures = dict[str, Any]


class Skipped(Exception):
    """A part can't run here; says why."""


@dataclass(frozen=True)
class Size:
    """How much is measured.

    product: rows and columns of the matrix product that gives the roof.
    rows: of the batches, small and large model.
    steps: of the batches, small and large model.
    hidden: of the large model.
    seconds: of each measurement of the engine, and of each rate tried.
    clients: processes that put load on the server.
    """

    product: int = 8192
    rows: Sequence[Sequence[int]] = ((1, 8, 64, 256), (1, 8, 64, 128))
    steps: Sequence[int] = (32, 1000)
    hidden: int = 1024
    seconds: float = 1.0
    frontends: Sequence[int] = (1, 2, 4, 8)
    clients: int = 4
    strides: int = 10


SMALL = Size(128, ((1, 4), (1, 4)), (8, 20), 32, 0.1, (1,), 1, 4)


# The roof


def measure_roof(device: torch.device, size: Size) -> dict[str, float]:
    """Operations per second of a square matrix product, by precision."""
    found = {}
    for name, dtype in DTYPES.items():
        if device.type == "cpu" and name == "float16":
            continue
        left, right = (torch.randn(size.product, size.product, device=device).to(dtype) for _ in range(2))
        found[name] = 2 * size.product**3 / best_seconds(lambda a=left, b=right: a @ b, device, size.seconds)
    return found


def best_seconds(work: Callable[[], object], device: torch.device, seconds: float) -> float:
    """The least time of one call, over so many seconds of calls, after some that are not timed."""

    def once() -> float:
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    for _ in range(3):
        once()
    end = time.perf_counter() + seconds
    least = math.inf
    while time.perf_counter() < end or least == math.inf:
        least = min(least, once())
    return least


# The engine


@dataclass(frozen=True)
class Shape:
    """The recurrent layers of a model."""

    width: int
    hidden: int
    layers: int
    directions: int

    @property
    def operations(self) -> int:
        """Of the matrix products of one step of one row; a multiplication and an addition are two."""
        widths = [self.width] + [self.directions * self.hidden] * (self.layers - 1)
        return sum(2 * 4 * self.hidden * (width + self.hidden) * self.directions for width in widths)


def measure_engine(device: torch.device, size: Size, roof: Mapping[str, float]) -> Figures:
    """Both models, all batches."""
    shapes = {"small": Shape(112, 128, 1, 2), "large": Shape(3, size.hidden, 2, 1)}
    found: Figures = {}
    with tempfile.TemporaryDirectory() as name:
        for index, (model, shape) in enumerate(shapes.items()):
            directory = PACKAGE if model == "small" else Path(name)
            found[model] = measure_model(model, shape, directory, device, size, index, roof)
    return found


def measure_model(
    model: str, shape: Shape, directory: Path, device: torch.device, size: Size, index: int, roof: Mapping[str, float]
) -> Figures:
    """One model: `torch.nn.LSTM` and ours in every precision, over batches of several sizes."""
    steps = size.steps[index]
    ours: dict[str, Callable[[int], float] | str] = {}
    for precision in roof:
        try:
            ours[precision] = our_engine(model, shape, directory, device, precision, steps, size.seconds)
        except Skipped as reason:
            ours[precision] = str(reason)
    batches = []
    for rows in size.rows[index]:
        for precision in roof:
            figures: Figures = {"rows": rows, "steps": steps, "precision": precision}
            timed = {"torch": lambda: lstm_seconds(shape, device, precision, rows, steps, size.seconds)}  # noqa: B023
            engine = ours[precision]
            if isinstance(engine, str):
                figures["ours_skipped"] = engine
            else:
                timed["ours"] = lambda: engine(rows)  # noqa: B023
            for side, measure in timed.items():
                seconds = measure()
                rate = rows * steps * shape.operations / seconds
                figures[side] = {
                    "seconds": seconds,
                    "rows_per_s": rows / seconds,
                    "share_of_roof": rate / roof[precision],
                }
            batches.append(figures)
    return {"operations_per_step": shape.operations, "batches": batches}


def lstm_seconds(shape: Shape, device: torch.device, precision: str, rows: int, steps: int, seconds: float) -> float:
    """Of `torch.nn.LSTM` over rows of one length, inputs and outputs on the device."""
    dtype = DTYPES[precision]
    lstm = torch.nn.LSTM(
        shape.width, shape.hidden, shape.layers, batch_first=True, bidirectional=shape.directions == 2
    ).to(device, dtype)
    lstm.flatten_parameters()
    x = torch.randn(rows, steps, shape.width, device=device).to(dtype)
    with torch.inference_mode():
        return best_seconds(lambda: lstm(x), device, seconds)


def our_engine(
    model: str, shape: Shape, directory: Path, device: torch.device, precision: str, steps: int, seconds: float
) -> Callable[[int], float]:
    """A function from rows to the seconds of a batch of that many through the executor port.

    Raises:
        Skipped: The executor can't be imported here, or has no such precision on this device.
    """
    try:
        from conveyor.domain import ModelKey
        from conveyor.engine.batching.shapes import Stair
        from conveyor.engine.executors.planned import open_executor
        from conveyor.engine.executors.port import Batch
    except ImportError as error:
        raise Skipped(f"our engine can't be imported: {error}") from error
    if model == "large" and not (directory / "model.toml").exists():
        write_large(directory, shape)
    key = ModelKey("sentiment-en" if model == "small" else "large", "1")
    try:
        executor = open_executor(str(device), precision)
    except ValueError as error:
        raise Skipped(str(error)) from error
    executor.load(key, directory)
    chance = np.random.default_rng(0)

    def measure(rows: int) -> float:
        inputs = executor.blank(key, rows, steps)
        if inputs.dtype == np.int32:
            inputs[:] = chance.integers(2, 20_000, size=inputs.shape)
        else:
            inputs[:] = chance.standard_normal(inputs.shape)
        batch = Batch(inputs, np.full(rows, steps, dtype=np.int32), [Stair(rows, steps)])
        return best_seconds(lambda: executor.run(key, batch), device, seconds)

    return measure


def write_large(directory: Path, shape: Shape) -> None:
    """The large model: a forecaster with random weights, as much of a package as an executor reads."""
    from safetensors.torch import save_file

    from conveyor.nn.models import build
    from conveyor.repository.manifest import render_manifest
    from conveyor.spec import package_spec_adapter

    spec = package_spec_adapter.validate_python(
        {
            "format_version": 1,
            "name": "large",
            "description": "random weights, for a measurement",
            "license": "MIT",
            "task": "forecast",
            "series": {
                "features": ["value"],
                "targets": ["value"],
                "frequency": "1h",
                "calendar": [],
                "half_life_steps": 48.0,
            },
            "recurrent": {"hidden": shape.hidden, "layers": shape.layers},
            "horizon": 1,
            "default_horizon": 1,
            "quantiles": [0.5],
            "history": 1000,
        }
    )
    torch.manual_seed(0)
    (directory / "model.toml").write_text(render_manifest(spec))
    save_file(build(spec).state_dict(), directory / "weights.safetensors")


# Exactness


def run_exactness(device: torch.device) -> Figures:
    """The tests marked `gpu`; without a CUDA device they skip themselves.

    Raises:
        Skipped: pytest or what the tests import is not here.
    """
    with tempfile.TemporaryDirectory() as name:
        report = Path(name) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
        environment = os.environ | {"PYTHONPATH": str(ROOT / "service")}
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=EXACTNESS_TIMEOUT_S
            )
        except subprocess.TimeoutExpired as error:
            raise Skipped(f"the tests took longer than {EXACTNESS_TIMEOUT_S} s") from error
        tail = (done.stdout + done.stderr)[-1500:]
        # Otherwise nothing ran: a package is missing, most likely.
        if done.returncode not in (0, 1) or not report.exists():
            raise Skipped(f"the tests can't be run here: {tail}")
        suite = ElementTree.parse(report).getroot()[0].attrib
    counts = {key: int(suite[key]) for key in ("tests", "failures", "errors", "skipped")}
    return counts | {"device": str(device), "output": tail}


# The server


def measure_served(device: torch.device, size: Size) -> list[Figures]:
    """Each number of front ends.

    Raises:
        Skipped: The server can't be imported here.
    """
    needed = "import conveyor.cli, conveyor.wiring.serve, conveyor.api.rest.app, conveyor.api.rpc.server"
    command = [sys.executable, "-c", needed]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "service")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Skipped(f"the server can't be imported: {done.stderr.strip().splitlines()[-1]}")
    counts = json.loads((HERE / "lengths.json").read_text())["SST"]
    texts = draw_texts(read_vocabulary(PACKAGE), counts, 2000, seed=1)
    found = []
    for frontends in size.frontends:
        try:
            found.append({"frontends": frontends, **serve_once(device, frontends, texts, size)})
        except (processes.ServerFailed, load.LoadError, OSError) as error:
            found.append({"frontends": frontends, "error": str(error)[-1000:]})
        say(f"served, {frontends} front ends: {found[-1].get('requests_per_s') or found[-1].get('error')}")
    return found


def serve_once(device: torch.device, frontends: int, texts: Sequence[str], size: Size) -> Figures:
    """Starts the server on the shipped models, and searches for its highest rate."""
    http, rpc, metrics = processes.free_ports(3)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        # Where the project is not installed, its version is asked for all the same.
        information = scratch / "conveyor-0.dist-info"
        information.mkdir()
        (information / "METADATA").write_text("Metadata-Version: 2.1\nName: conveyor\nVersion: 0\n")
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "service"), str(scratch)])}
        command = [sys.executable, "-m", "conveyor", "serve", "--device", str(device), "--frontends", str(frontends)]
        command += ["--http-port", str(http), "--grpc-port", str(rpc), "--metrics-port", str(metrics)]
        requests = scratch / "requests"
        bodies = [json.dumps({"inputs": text}).encode() for text in texts]
        write_file([http_request(http, "/v1/sentiment", body) for body in bodies], requests)
        with processes.start(command, ROOT, scratch / "log", environment) as started:
            processes.wait_ready(started, http, http_get(http, "/health/ready"), READY_S)
            closed = load.closed_loop(http, requests, 128, math.ceil(size.seconds))
            probes: list[Figures] = []

            def holds(rate: float) -> bool:
                def one(client: int) -> Figures:
                    return load.open_loop(http, requests, rate / size.clients, 2 * size.seconds, LIMIT_MS, seed=client)

                # Poisson processes side by side are one of the sum of their rates.
                with ThreadPoolExecutor(size.clients) as pool:
                    figures = list(pool.map(one, range(size.clients)))
                probes.append({"rate": rate, "clients": figures})
                processes.settle(http, http_request(http, "/v1/sentiment", bodies[0]))
                return all(figure["held"] for figure in figures)

            guess = 0.7 * closed["requests_per_s"]
            rate = highest_rate(holds, guess, halvings=2, strides=size.strides)
    return {"requests_per_s": rate, "limit_ms": LIMIT_MS, "closed_loop_128": closed, "probes": probes}


# The whole


def main() -> None:
    """Runs every part that can run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu")
    parser.add_argument("--small", action="store_true", help="small sizes: to see that it runs")
    parser.add_argument("--output", type=Path, default=Path(os.environ.get("OUT") or HERE) / "gpu.json")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device here; --device cpu --small runs the logic without one")
    size = SMALL if options.small else Size()
    if device.type == "cpu":
        torch.set_num_threads(1)
        size = replace(size, product=min(size.product, 1024))
    # As our engine sets it: a roof of rounded operands would not be one of float32.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False

    started = time.monotonic()
    results: Figures = {"command": " ".join(["python", *sys.argv]), "machine": describe(device)}
    results["roof_operations_per_s"] = roof = measure_roof(device, size)
    say(f"roof: {', '.join(f'{name} {rate / 1e12:.2f} TFLOP/s' for name, rate in roof.items())}")
    parts: dict[str, Callable[[], object]] = {
        "exactness": lambda: run_exactness(device),
        "engine": lambda: measure_engine(device, size, roof),
        "served": lambda: measure_served(device, size),
    }
    for name, part in parts.items():
        say(f"{name} …")
        try:
            results[name] = part()
        except Skipped as reason:
            results[name] = {"skipped": str(reason)}
            say(f"{name}: skipped, because {reason}")
    results["seconds"] = round(time.monotonic() - started, 1)
    options.output.write_text(json.dumps(finite(results), indent=1) + "\n")
    show(results)
    if results["exactness"].get("failures") or results["exactness"].get("errors"):
        sys.exit(1)


def describe(device: torch.device) -> Figures:
    """Where this runs."""
    found: Figures = {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
    if device.type == "cuda":
        found |= {
            "gpu": torch.cuda.get_device_name(device),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return found


def show(results: Figures) -> None:
    """The engine's figures as plain text."""
    for model, figures in results["engine"].items():
        for batch in figures["batches"] if isinstance(figures, dict) else ():
            line = f"{model:6}{batch['rows']:5} rows × {batch['steps']:4} steps  {batch['precision']:9}"
            for side in ("torch", "ours"):
                if side in batch:
                    line += f"{side:>7} {batch[side]['rows_per_s']:10.0f} rows/s {batch[side]['share_of_roof']:6.1%}"
            print(line)


def finite(value: Any) -> Any:
    """JSON has no infinity: a latency of what was never answered is null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: finite(part) for key, part in value.items()}
    return [finite(part) for part in value] if isinstance(value, (list, tuple)) else value


def say(what: str) -> None:
    """Progress, apart from the results."""
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
