"""What an execution takes with each candidate that can run here: milliseconds for rows × steps, a table for each model.

    python benchmarks/kernels.py [MODELS_DIRECTORY]

Writes `kernels.json` beside itself and prints the tables of docs/planning.md.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path

import numpy as np
import structlog
import torch

from conveyor.domain import ModelKey
from conveyor.engine.batching.shapes import Stair
from conveyor.engine.executors.candidates import CANDIDATES, Candidate
from conveyor.engine.executors.device_kind import device_kind, device_name
from conveyor.engine.executors.port import Batch
from conveyor.engine.executors.torch_executor import Choice, TorchExecutor
from conveyor.engine.planning.synthetic import synthetic_rows
from conveyor.repository.layout import scan
from conveyor.repository.manifest import read_manifest

ROWS = (1, 2, 8, 32, 64)
STEPS = (8, 25, 64, 200)
# Each shape is run for about this long in turn with the other candidates, and the least time counts.
SECONDS_EACH = 0.12
FEWEST_RUNS = 4
# What the tables show of each shape, in this order; the raw figures hold every candidate.
SHOWN = ("torch float32", "onnxruntime float32", "kernel float32", "kernel bfloat16", "kernel int8")


def main(models: Path) -> None:
    """Measures every model."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    device = torch.device("cpu")
    found = {
        "device": device_name(device),
        "kind": device_kind(device),
        "torch": torch.__version__,
        "rows": ROWS,
        "steps": STEPS,
        "milliseconds": {},
    }
    for versions in scan(models).versions.values():
        key, directory = next(iter(versions.items()))
        found["milliseconds"][key.name] = measured = measure(key, directory, device)
        print(f"\n{key.name}\n")
        print_table(measured)
    Path(__file__).with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")


def measure(key: ModelKey, directory: Path, device: torch.device) -> dict[str, list[list[float]]]:
    """By candidate, milliseconds for each of ROWS and STEPS."""
    spec = read_manifest(directory / "model.toml")
    executors = {}
    for candidate in CANDIDATES:
        if device.type in candidate.devices and candidate.obstacle(device, spec.recurrent) is None:
            executors[str(candidate)] = open_with(candidate, key, directory)
    content = np.concatenate(synthetic_rows(spec, 400, seed=0))
    least = {name: [[0.0] * len(STEPS) for _ in ROWS] for name in executors}
    for i, rows in enumerate(ROWS):
        for j, steps in enumerate(STEPS):
            inputs = np.resize(content, (rows, steps, content.shape[1]))
            batch = Batch(inputs, np.full(rows, steps, dtype=np.int32), [Stair(rows, steps)])
            for name, seconds in time_in_turn(executors, key, batch).items():
                least[name][i][j] = round(seconds * 1e3, 3)
    return least


def open_with(candidate: Candidate, key: ModelKey, directory: Path) -> TorchExecutor:
    """An executor that has the model."""
    executor = TorchExecutor("cpu", lambda *_: Choice(candidate, "measured"))
    executor.load(key, directory)
    return executor


def time_in_turn(executors: dict[str, TorchExecutor], key: ModelKey, batch: Batch) -> dict[str, float]:
    """The least seconds of one execution, by candidate."""
    least = dict.fromkeys(executors, float("inf"))
    started = time.perf_counter()
    runs = 0
    while runs < FEWEST_RUNS or time.perf_counter() - started < SECONDS_EACH * len(executors):
        for name, executor in executors.items():
            before = time.perf_counter()
            executor.run(key, batch)
            least[name] = min(least[name], time.perf_counter() - before)
        runs += 1
    return least


def print_table(measured: dict[str, list[list[float]]]) -> None:
    """Markdown: a line for each number of rows, a column for each number of steps, one figure for each of SHOWN."""
    print(f"| rows | {' | '.join(f'{steps} steps' for steps in STEPS)} |")
    print("| --- " * (len(STEPS) + 1) + "|")
    for i, rows in enumerate(ROWS):
        cells = [
            " / ".join(f"{measured[name][i][j]:.3g}" for name in SHOWN if name in measured) for j in range(len(STEPS))
        ]
        print(f"| {rows} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "models"))
