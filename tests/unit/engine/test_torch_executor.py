"""The torch executor loads only what fits its description, and computes each row for itself, on every device."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from conveyor.domain import ModelKey
from conveyor.engine.batching.shapes import Stair, bucket
from conveyor.engine.executors.port import Batch, BatchResult, OutOfDeviceMemory
from conveyor.engine.executors.torch_executor import TorchExecutor
from conveyor.errors import PackageError
from conveyor.nn.scan import RowScan
from conveyor.spec import ForecastSpec, PackageSpec
from support.packages import FORECAST, SEGMENT, SENTIMENT, TAG, write_tiny_package

CUDA = pytest.param(
    "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")]
)
SPECS = [SENTIMENT, TAG, SEGMENT, FORECAST]


@pytest.fixture(params=["cpu", CUDA])
def executor(request: pytest.FixtureRequest) -> Iterator[TorchExecutor]:
    """An executor on each device there is."""
    threads = torch.get_num_threads()
    yield TorchExecutor(request.param)
    torch.set_num_threads(threads)


def load(executor: TorchExecutor, directory: Path) -> ModelKey:
    """Loads a package."""
    key = ModelKey(directory.parent.name, directory.name)
    executor.load(key, directory)
    return key


def random_rows(spec: PackageSpec, lengths: list[int]) -> list[np.ndarray]:
    """Rows of a model with seeded random content."""
    chance = np.random.default_rng(0)
    if isinstance(spec, ForecastSpec):
        return [chance.normal(size=(n, spec.series.width)).astype(np.float32) for n in lengths]
    return [chance.integers(1, 20, size=(n, len(spec.text.columns)), dtype=np.int32) for n in lengths]


def batch_of(rows: list[np.ndarray], stairs: list[Stair]) -> Batch:
    """Rows in descending order of length, padded to the shape of some stairs."""
    inputs = np.zeros((stairs[0].rows, sum(stair.steps for stair in stairs), rows[0].shape[1]), dtype=rows[0].dtype)
    lengths = np.zeros(len(inputs), dtype=np.int32)
    for index, row in enumerate(rows):
        inputs[index, : len(row)] = row
        lengths[index] = len(row)
    return Batch(inputs, lengths, stairs)


def outputs_of(result: BatchResult, index: int, length: int) -> dict[str, np.ndarray]:
    """What came out for one row."""
    return {name: array[index, :length] if result.stepwise else array[index] for name, array in result.arrays.items()}


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_row_is_computed_alike_in_every_batch(executor: TorchExecutor, tmp_path: Path, spec: PackageSpec) -> None:
    """Alone or beside others, whole or cut, at any padding: tags are equal, numbers agree to 1e-5."""
    key = load(executor, write_tiny_package(tmp_path, spec))
    rows = random_rows(spec, [17, 17, 9, 5, 3, 1, 0])
    together = executor.run(key, batch_of(rows, [Stair(8, 24)]))
    cut = executor.run(key, batch_of(rows, [Stair(8, 1), Stair(6, 4), Stair(4, 4), Stair(2, 8)]))
    for index, row in enumerate(rows):
        expected = outputs_of(together, index, len(row))
        for stairs in ([Stair(1, len(row) or 1)], [Stair(2, 40)]):
            alone = outputs_of(executor.run(key, batch_of([row], stairs)), 0, len(row))
            assert_alike(expected, alone)
        assert_alike(expected, outputs_of(cut, index, len(row)))


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
@given(chance=st.randoms(use_true_random=False))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_run_in_chunks_beside_any_others_equal_rows_run_whole(
    tmp_path_factory: pytest.TempPathFactory, spec: PackageSpec, chance: random.Random
) -> None:
    """Rows enter and leave at any step, in any company, with h and c carried: the answer is that of the whole row."""
    executor = TorchExecutor("cpu")
    key = load(executor, write_tiny_package(tmp_path_factory.mktemp("models"), spec))
    waiting = random_rows(spec, [chance.randint(1, 60) for _ in range(6)])
    begun: list[tuple[RowScan, np.ndarray]] = []
    finished: list[tuple[RowScan, np.ndarray]] = []
    while waiting or begun:
        while waiting and (not begun or chance.random() < 0.3):
            row = waiting.pop()
            begun.append((executor.begin(key, row), row))
        phase = chance.choice([phase for scan, _ in begun for phase in scan.phases])
        group = [scan for scan, _ in begun if phase in scan.phases][: chance.randint(1, 4)]
        executor.advance(key, group, phase, chance.choice([1, 4, 16]), bucket(len(group)))
        finished += [entry for entry in begun if not entry[0].phases]
        begun = [entry for entry in begun if entry[0].phases]
    for scan, row in finished:
        whole = executor.run(key, batch_of([row], [Stair(2, len(row))]))
        in_chunks = executor.finish(key, scan)
        assert_alike(outputs_of(whole, 0, len(row)), outputs_of(in_chunks, 0, len(row)))


class NoRoom(TorchDispatchMode):
    """Memory runs out at one operation, the first being number 0."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.left = number

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.left -= 1
        if self.left == -1:
            raise torch.OutOfMemoryError("no room")
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_rows_go_on_from_where_memory_ran_out(executor: TorchExecutor, tmp_path: Path, spec: PackageSpec) -> None:
    """At whatever operation a chunk fails, its rows go on afterwards and give the answer of the whole row."""
    key = load(executor, write_tiny_package(tmp_path, spec))
    rows = random_rows(spec, [7, 5])
    expected = [executor.run(key, batch_of([row], [Stair(2, len(row))])) for row in rows]
    number, failed = 0, True
    while failed:
        failed = False
        scans = [executor.begin(key, row) for row in rows]
        while any(scan.phases for scan in scans):
            phase = next(scan.phases[0] for scan in scans if scan.phases)
            group = [scan for scan in scans if phase in scan.phases]
            try:
                with NoRoom(number):
                    executor.advance(key, group, phase, 4, 2)
            except OutOfDeviceMemory:
                failed = True
                for scan in group:
                    if phase in scan.phases:
                        executor.advance(key, [scan], phase, 2, 2)
        for row, scan, whole in zip(rows, scans, expected, strict=True):
            assert_alike(outputs_of(whole, 0, len(row)), outputs_of(executor.finish(key, scan), 0, len(row)))
        number += 1
    assert number > 10


def assert_alike(expected: dict[str, np.ndarray], actual: dict[str, np.ndarray]) -> None:
    """Tags equal, numbers within 1e-5."""
    for name, array in expected.items():
        np.testing.assert_allclose(array, actual[name], rtol=0, atol=0 if name == "tags" else 1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_cuda_agrees_with_the_cpu(tmp_path: Path, spec: PackageSpec) -> None:
    """The same package gives the same answers on both kinds of device, within 1e-4."""
    directory = write_tiny_package(tmp_path, spec)
    batch = batch_of(random_rows(spec, [17, 5, 1, 0]), [Stair(4, 8), Stair(2, 16)])
    results = [(executor := TorchExecutor(device)).run(load(executor, directory), batch) for device in ("cpu", "cuda")]
    for name, array in results[0].arrays.items():
        np.testing.assert_allclose(array, results[1].arrays[name], atol=1e-4)


def test_shapes_that_do_not_fit_are_named_and_nothing_is_loaded(executor: TorchExecutor, tmp_path: Path) -> None:
    """Every tensor at fault is a problem of its own; the model does not exist afterwards."""
    directory = write_tiny_package(tmp_path, SENTIMENT)
    manifest = directory / "model.toml"
    manifest.write_text(manifest.read_text().replace("hidden = 8", "hidden = 4"))
    with pytest.raises(PackageError) as raised:
        executor.load(ModelKey("sentiment-en", "1"), directory)

    assert {"weights.safetensors"} == {problem.file for problem in raised.value.problems}
    assert "head.weight" in {problem.field for problem in raised.value.problems}
    assert 0 == executor.memory_bytes()["weights"]


def test_unloading_gives_the_memory_back(executor: TorchExecutor, tmp_path: Path) -> None:
    """Weights are counted while a model is loaded."""
    key = load(executor, write_tiny_package(tmp_path, TAG))
    assert executor.memory_bytes()["weights"] > 0
    executor.unload(key)
    assert 0 == executor.memory_bytes()["weights"]


def test_a_device_that_is_not_there_is_refused() -> None:
    """The error says how many CUDA devices there are."""
    with pytest.raises(ValueError, match="CUDA devices"):
        TorchExecutor("cuda:99")
