"""How much of the device's time do our batches waste, and what is answered in time, beside two plain ways to batch?

The serving path (front end, admission, backlog, policy, engine loop) is simulated on a fake clock; what an execution
takes is read from a cost table that was measured on a real model. Three policies take rows of real lengths:

ours          as served.
FIFO          64 rows in order of arrival, padded to the longest: a plain dynamic batcher.
buckets       64 rows in order of arrival among those between two powers of two, padded to the longest; the bucket
              whose first row has waited longest goes next.

The two others have no admission and no deadlines, get every row at once, and pay for exactly the rows they hold.

Run from the root of the project; without options it reuses the lengths and the cost table stored beside it:
`python benchmarks/batching.py [--measure models/sentiment-en/1] [--read-lengths]`
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import math
import os
import platform
import random
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from conveyor.domain import ModelKey
from conveyor.engine.batching.backlog import BacklogLimits
from conveyor.engine.batching.costs import CostTable
from conveyor.engine.batching.policy import BatchLimits
from conveyor.engine.loop import EngineLoop
from conveyor.errors import ConveyorError
from conveyor.gateway.admission import Admission
from conveyor.gateway.call import Call
from conveyor.gateway.dispatcher import Dispatcher
from conveyor.settings import ServeSettings
from conveyor.simulation.engine import SimulatedEngine
from conveyor.simulation.executor import DeviceClock, SimulatedExecutor
from conveyor.simulation.network import Network
from conveyor.simulation.virtual_time import run
from conveyor.wire.messages import NO_DEADLINE, NORMAL_PRIORITY, BatchReport, Reply, ResultBlock, RowBlock

HERE = Path(__file__).parent
LENGTHS, RESULTS, PLOT = HERE / "lengths.json", HERE / "batching.json", HERE / "batching.png"

MODEL = ModelKey("m", "1")
WAITING = 128
BATCH_ROWS = 64
# Deviation of the logarithm of an execution's time, for all policies.
NOISE = 0.05
NETWORK_S = 2e-4
LOADS = (0.5, 0.8, 0.95, 5.0)
DEADLINES_S = {"SST": 0.1, "IMDB": 1.0, "mixed": 1.0}
# Code points of a token, which admission has to learn; a text is not quite the mean.
SIZE_PER_STEP, SIZE_DEVIATION = 5.0, 0.5


@dataclass(frozen=True)
class Saturated:
    """padding: part of the computed steps that no row asked for."""

    padding: float
    rows_per_s: float
    useful_steps_per_s: float


@dataclass(frozen=True)
class Loaded:
    """Under Poisson arrivals at `load` times capacity.

    p50_s, p99_s: of the rows that were answered.
    in_time: answers before their deadline, as part of what arrived.
    goodput: answers before their deadline that came before the last arrival, over capacity × time.
    goodput_steps: the same by steps instead of rows: a policy can't gain by answering short rows first.
    refused, late: parts of what arrived that were refused at once, and that failed later.
    """

    load: float
    p50_s: float
    p99_s: float
    in_time: float
    goodput: float
    goodput_steps: float
    refused: float
    late: float


class Drawn:
    """Lengths drawn from histograms, each as likely as the others."""

    def __init__(self, histograms: Sequence[Sequence[int]], seed: int) -> None:
        self._chance = np.random.default_rng(seed)
        self._histograms = [np.array(counts) / sum(counts) for counts in histograms]

    def take(self, count: int) -> list[int]:
        """Lengths of rows, in order of arrival."""
        columns = [self._chance.choice(len(part), size=count, p=part) for part in self._histograms]
        which = self._chance.integers(len(columns), size=count)
        return np.choose(which, columns).tolist()


# The two others


@dataclass(frozen=True, slots=True)
class Waiting:
    """A row that arrived."""

    index: int
    length: int


class Batcher(Protocol):
    """Rows in, batches out."""

    def add(self, row: Waiting) -> None:
        """A row arrives."""

    def take(self) -> Sequence[Waiting]:
        """The rows to compute next; none if none wait."""


class Fifo:
    """In order of arrival."""

    def __init__(self) -> None:
        self._rows: deque[Waiting] = deque()

    def add(self, row: Waiting) -> None:
        """Last in the line."""
        self._rows.append(row)

    def take(self) -> Sequence[Waiting]:
        """First in the line."""
        return [self._rows.popleft() for _ in range(min(BATCH_ROWS, len(self._rows)))]


class Buckets:
    """A line for each power of two."""

    def __init__(self) -> None:
        self._lines: dict[int, Fifo] = {}
        self._first: dict[int, deque[int]] = {}

    def add(self, row: Waiting) -> None:
        """Last in its line."""
        key = row.length.bit_length()
        self._lines.setdefault(key, Fifo()).add(row)
        self._first.setdefault(key, deque()).append(row.index)

    def take(self) -> Sequence[Waiting]:
        """From the line whose first row came first."""
        keys = [key for key, first in self._first.items() if first]
        if not keys:
            return []
        key = min(keys, key=lambda key: self._first[key][0])
        rows = self._lines[key].take()
        for _ in rows:
            self._first[key].popleft()
        return rows


OTHERS: Mapping[str, Callable[[], Batcher]] = {"FIFO": Fifo, "buckets": Buckets}


def rectangle_s(rows: Sequence[Waiting], costs: CostTable) -> float:
    """Seconds of a batch that is padded to its longest row. A lone row is run as two, as ours is."""
    return costs.estimate_s(max(len(rows), 2), max(row.length for row in rows))


def saturate_other(batcher: Batcher, lengths: Iterable[int], costs: CostTable, num_rows: int) -> Saturated:
    """Runs with `WAITING` rows in line at the start of each batch."""
    rows = (Waiting(index, length) for index, length in enumerate(lengths))
    for row in itertools.islice(rows, WAITING):
        batcher.add(row)
    seconds = useful = computed = done = 0.0
    while done < num_rows:
        batch = batcher.take()
        seconds += rectangle_s(batch, costs)
        useful += sum(row.length for row in batch)
        computed += len(batch) * max(row.length for row in batch)
        done += len(batch)
        for row in itertools.islice(rows, len(batch)):
            batcher.add(row)
    return Saturated(1 - useful / computed, done / seconds, useful / seconds)


def load_other(
    batcher: Batcher, lengths: Sequence[int], arrivals: Sequence[float], costs: CostTable, noise: random.Random
) -> list[float]:
    """How long each row takes from arrival to answer."""
    latencies = [math.inf] * len(lengths)
    now = 0.0
    coming = deque(enumerate(arrivals))
    while True:
        while coming and coming[0][1] <= now:
            index, _ = coming.popleft()
            batcher.add(Waiting(index, lengths[index]))
        batch = batcher.take()
        if batch:
            now += rectangle_s(batch, costs) * noise.lognormvariate(0.0, NOISE)
            for row in batch:
                latencies[row.index] = now - arrivals[row.index]
        elif coming:
            now = coming[0][1]
        else:
            return latencies


# Ours


def limits() -> tuple[BacklogLimits, BatchLimits]:
    """What `conveyor serve` sets if it is told nothing."""
    settings = ServeSettings()
    return (
        BacklogLimits(settings.queue_rows, settings.queue_size),
        BatchLimits(rows=settings.batch_rows, padded_steps=settings.batch_steps),
    )


def saturate_ours(lengths: Iterable[int], costs: CostTable, num_rows: int) -> Saturated:
    """The engine alone, with `WAITING` rows in it, waiting or in chunks, before each execution."""
    clock = DeviceClock()
    reports: list[BatchReport] = []

    def reply(answer: Reply) -> None:
        assert isinstance(answer, ResultBlock)
        reports.append(answer.report)

    engine = EngineLoop(SimulatedExecutor(clock, costs, random.Random(0)), *limits(), reply, clock)
    engine.load(MODEL, Path("unused"))
    started = clock.now
    ids = itertools.count()
    rows = iter(lengths)
    done = 0
    missing = WAITING
    while done < num_rows:
        wanted = list(itertools.islice(rows, missing))
        row_ids = list(itertools.islice(ids, missing))
        if missing:
            engine.submit(
                RowBlock(
                    MODEL,
                    row_ids,
                    [NO_DEADLINE] * missing,
                    [NORMAL_PRIORITY] * missing,
                    row_ids,
                    wanted,
                    np.zeros((sum(wanted), 1), dtype=np.int32),
                )
            )
        before = len(reports)
        engine.step()
        missing = sum(report.rows for report in reports[before:])
        done += missing
    useful = sum(report.useful_steps for report in reports)
    padding = sum(report.padding_steps for report in reports)
    seconds = clock.now - started
    return Saturated(padding / (useful + padding), done / seconds, useful / seconds)


async def load_ours(
    lengths: Sequence[int], arrivals: Sequence[float], deadline_s: float, costs: CostTable, chance: random.Random
) -> tuple[list[float], int]:
    """How long each row takes from arrival to answer, infinite if it fails; and how many were refused at once."""
    loop = asyncio.get_running_loop()
    settings = ServeSettings()
    clock = DeviceClock()
    executor = SimulatedExecutor(clock, costs, chance, NOISE)
    engine = SimulatedEngine(executor, clock, *limits(), Network(chance, NETWORK_S, ordered=True))
    admission = Admission(settings.queue_rows, settings.queue_size, settings.batch_rows)

    def observe(report: BatchReport) -> None:
        if not report.in_chunks:
            admission.observe(MODEL, report.useful_steps, report.compute_s)

    dispatcher = Dispatcher(engine, observe, loop.time)
    await engine.load(MODEL, Path("unused"))
    admission.set_price(MODEL, (await engine.stats()).costs[MODEL].row_step_s)
    refused = 0

    async def request(length: int) -> float:
        nonlocal refused
        now = loop.time()
        size = max(round(length * chance.gauss(SIZE_PER_STEP, SIZE_DEVIATION)), 1)
        call = Call("sentiment", "simulation", "", now + deadline_s)
        admitted = False
        try:
            with admission.admit(MODEL, 1, size, now, call.deadline):
                admitted = True
                admission.learn(MODEL, size, length)
                await dispatcher.run(call, MODEL, [np.zeros((length, 1), dtype=np.int32)])
        except ConveyorError:
            refused += not admitted
            return math.inf
        return loop.time() - now

    started = loop.time()
    tasks = []
    for length, arrival in zip(lengths, arrivals, strict=True):
        await asyncio.sleep(started + arrival - loop.time())
        tasks.append(asyncio.ensure_future(request(length)))
    latencies = await asyncio.gather(*tasks)
    await engine.drain()
    return latencies, refused


# The whole


def summarise(
    load: float,
    lengths: Sequence[int],
    arrivals: Sequence[float],
    latencies: Sequence[float],
    refused: int,
    deadline_s: float,
    best: Saturated,
) -> Loaded:
    """Figures of one run.

    Args:
        best: What the device can do.
    """
    steps, arrived, taken = np.array(lengths), np.array(arrivals), np.array(latencies)
    span_s = arrivals[-1]
    in_time = taken <= deadline_s
    in_span = in_time & (arrived + taken <= span_s)
    p50, p99 = np.quantile(taken[np.isfinite(taken)], [0.5, 0.99]).tolist()
    return Loaded(
        load=load,
        p50_s=p50,
        p99_s=p99,
        in_time=float(in_time.mean()),
        goodput=float(in_span.sum()) / (best.rows_per_s * span_s),
        goodput_steps=float(steps[in_span].sum()) / (best.useful_steps_per_s * span_s),
        refused=refused / len(taken),
        late=float(1 - in_time.mean()) - refused / len(taken),
    )


def compare(
    name: str, histograms: Sequence[Sequence[int]], costs: CostTable, num_rows: int, seed: int
) -> Mapping[str, object]:
    """All policies on the same lengths and the same arrivals."""
    lengths = Drawn(histograms, seed).take(2 * num_rows + WAITING + BATCH_ROWS)
    saturated = {"ours": saturate_ours(lengths, costs, num_rows)}
    saturated |= {other: saturate_other(make(), lengths, costs, num_rows) for other, make in OTHERS.items()}
    best = max(saturated.values(), key=lambda result: result.rows_per_s)
    capacity = best.rows_per_s
    deadline_s = DEADLINES_S[name]
    loaded: dict[str, list[Loaded]] = {policy: [] for policy in saturated}
    for load in LOADS:
        drawn = Drawn(histograms, seed + 1).take(round(num_rows * load))
        gaps = np.random.default_rng(seed + 2).exponential(1 / (load * capacity), size=len(drawn))
        arrivals = np.cumsum(gaps).tolist()
        ours, refused = run(load_ours(drawn, arrivals, deadline_s, costs, random.Random(seed)))
        loaded["ours"].append(summarise(load, drawn, arrivals, ours, refused, deadline_s, best))
        for other, make in OTHERS.items():
            latencies = load_other(make(), drawn, arrivals, costs, random.Random(seed))
            loaded[other].append(summarise(load, drawn, arrivals, latencies, 0, deadline_s, best))
        print(f"{name} at {load:g} x capacity: done", file=sys.stderr)
    return {
        "mean_steps": float(np.mean(lengths)),
        "longest_steps": max(lengths),
        "capacity_rows_per_s": capacity,
        "deadline_s": deadline_s,
        "saturated": {policy: asdict(result) for policy, result in saturated.items()},
        "loaded": {policy: [asdict(result) for result in results] for policy, results in loaded.items()},
    }


def print_tables(results: Mapping[str, dict]) -> None:
    """The figures as plain text."""
    print(f"\n{WAITING} rows always waiting")
    print(f"{'lengths':8}{'policy':10}{'padding':>9}{'rows/s':>9}{'steps/s':>10}")
    for name, result in results.items():
        for policy, found in result["saturated"].items():
            rate, steps = found["rows_per_s"], found["useful_steps_per_s"]
            print(f"{name:8}{policy:10}{found['padding']:9.1%}{rate:9.0f}{steps:10.0f}")
    print("\nPoisson arrivals; capacity: the best rate above of any policy; goodput: answers before the deadline")
    heads = ("p50 ms", "p99 ms", "in time", "goodput", "by steps", "refused", "late")
    print(f"{'lengths':8}{'deadline':>9}{'load':>6}  {'policy':8}" + "".join(f"{head:>9}" for head in heads))
    for name, result in results.items():
        for index, load in enumerate(LOADS):
            for policy, runs in result["loaded"].items():
                found = runs[index]
                parts = ("in_time", "goodput", "goodput_steps", "refused", "late")
                print(
                    f"{name:8}{result['deadline_s']:8g}s{load:6g}  {policy:8}"
                    f"{1e3 * found['p50_s']:9.1f}{1e3 * found['p99_s']:9.1f}"
                    + "".join(f"{found[part]:9.1%}" for part in parts)
                )


def plot(results: Mapping[str, dict]) -> None:
    """Padding, and goodput at the highest load."""
    import matplotlib as mpl  # only here: the figures do not need it

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    policies = ["FIFO", "buckets", "ours"]
    colours = dict(zip(policies, ("#bbbbbb", "#7a9cc6", "#1b4f8f"), strict=True))
    figure, axes = plt.subplots(1, 3, figsize=(14, 4), layout="constrained")

    def bars(axis: plt.Axes, title: str, value: Callable[[dict, str], float]) -> None:
        for offset, policy in enumerate(policies):
            at = [index + (offset - 1) * 0.27 for index in range(len(results))]
            heights = [100 * value(result, policy) for result in results.values()]
            drawn = axis.bar(at, heights, 0.25, color=colours[policy], label=policy)
            axis.bar_label(drawn, [f"{height:.1f}" for height in heights], fontsize=8)
        axis.set_xticks(range(len(results)), list(results))
        axis.set_title(title, fontsize=10)
        axis.margins(y=0.12)
        axis.spines[["top", "right"]].set_visible(False)

    bars(axes[0], f"steps wasted on padding, {WAITING} rows waiting, %", lambda r, p: r["saturated"][p]["padding"])
    bars(
        axes[1],
        f"steps answered in time at {LOADS[-1]:g} × capacity, % of capacity",
        lambda r, p: r["loaded"][p][-1]["goodput_steps"],
    )
    axes[0].legend(frameon=False, fontsize=9)
    styles = dict(zip(results, ("-", "--", ":"), strict=True))
    for name, result in results.items():
        for policy in policies:
            runs = [found for found in result["loaded"][policy] if found["load"] < 1]
            axes[2].plot(
                [100 * found["load"] for found in runs],
                [1e3 * found["p99_s"] for found in runs],
                styles[name],
                color=colours[policy],
                marker="o",
                markersize=3,
                label=f"{name}, {policy}",
            )
    axes[2].set_yscale("log")
    axes[2].set_xlabel("load, % of capacity")
    axes[2].set_title("p99 of answered rows, ms", fontsize=10)
    axes[2].legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    axes[2].spines[["top", "right"]].set_visible(False)
    figure.savefig(PLOT, dpi=130)


# Inputs


def measure(directory: Path) -> CostTable:
    """The cost table of a package on this machine's CPU; the least of some measurements, as in `measure_costs`."""
    from conveyor.engine.executors.torch_executor import TorchExecutor
    from conveyor.engine.warmup import measure_costs

    executor = TorchExecutor("cpu")
    executor.load(MODEL, directory)
    tables = [measure_costs(executor, MODEL, time.monotonic) for _ in range(10)]
    least = np.min([table.measured_s for table in tables], axis=0).tolist()
    cut_s = float(np.median([table.cut_s for table in tables]))
    return CostTable(tables[0].rows, tables[0].steps, least, cut_s)


def read_lengths(directory: Path) -> Mapping[str, Sequence[int]]:
    """How many texts have how many tokens, as `sentiment-en` makes them: counts by length. Sentences of SST-2, reviews
    of IMDB, train and dev, from `CONVEYOR_DATA_DIR`."""
    from conveyor.features.text import TextEncoder
    from conveyor.repository.manifest import read_manifest
    from conveyor.training.readers.sentiment import read_imdb, read_labelled_lines

    spec = read_manifest(directory / "model.toml")
    assert spec.task == "sentiment"
    encoder = TextEncoder.load(spec.text, directory)
    data = Path(os.environ["CONVEYOR_DATA_DIR"]) / "sentiment-en"
    texts = {
        "SST": [*read_labelled_lines(data / "sst/sst2.train.tsv.xz"), *read_labelled_lines(data / "sst/sst2.dev.tsv")],
        "IMDB": read_imdb(data / "imdb/train.tsv.xz"),
    }
    histograms = {}
    for name, examples in texts.items():
        counts = Counter(len(encoder.encode(example.text).ids) for example in examples)
        histograms[name] = [counts[length] for length in range(max(counts) + 1)]
    return histograms


def main() -> None:
    """Runs everything and writes the results beside this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", type=Path, metavar="PACKAGE", help="measure the cost table of a package here")
    parser.add_argument("--read-lengths", action="store_true", help="count lengths again, from CONVEYOR_DATA_DIR")
    parser.add_argument("--package", type=Path, default=Path("models/sentiment-en/1"), help="whose tokens are counted")
    parser.add_argument("--rows", type=int, default=20_000, help="rows at a load of 1")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()

    if options.read_lengths:
        LENGTHS.write_text(json.dumps(read_lengths(options.package)) + "\n")
    histograms = json.loads(LENGTHS.read_text())
    if options.measure:
        costs = measure(options.measure)
        measured_on = {"package": str(options.measure), "machine": machine()}
    else:
        stored = json.loads(RESULTS.read_text())
        costs, measured_on = CostTable(**stored["costs"]), stored["costs_measured_on"]
    mixes = {"SST": ["SST"], "IMDB": ["IMDB"], "mixed": ["SST", "IMDB"]}
    started = time.perf_counter()
    results = {
        name: compare(name, [histograms[part] for part in parts], costs, options.rows, options.seed)
        for name, parts in mixes.items()
    }
    document = {
        "command": " ".join(["python", *sys.argv]),
        "machine": machine(),
        "seed": options.seed,
        "rows": options.rows,
        "seconds": round(time.perf_counter() - started, 1),
        "network_s": NETWORK_S,
        "noise": NOISE,
        "costs_measured_on": measured_on,
        "costs": {key: value for key, value in asdict(costs).items() if key != "factor"},
        "results": results,
    }
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")
    print_tables(results)
    plot(results)


def machine() -> Mapping[str, object]:
    """Where this runs."""
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    return {
        "cpu": cpu.partition(":")[2].strip() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


if __name__ == "__main__":
    main()
