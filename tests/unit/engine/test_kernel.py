"""The kernel in C: every variant that this CPU runs computes what torch does, each row for itself, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from conveyor.domain import ModelKey
from conveyor.engine.batching.shapes import Stair
from conveyor.engine.executors.candidates import CANDIDATES, KERNEL
from conveyor.engine.executors.device_kind import device_kind
from conveyor.engine.executors.kernel.build import VARIANTS, build, library
from conveyor.engine.executors.kernel.layer import KernelLayer, quantise
from conveyor.engine.executors.kernel.library import Kernel, find_kernel
from conveyor.engine.executors.planned import open_executor, versions_of
from conveyor.engine.executors.port import Batch
from conveyor.repository.plan_lock import CandidateFigures, DevicePlan, write_plan
from conveyor.spec import RecurrentSpec
from support.kernels import kernel as kernel
from support.packages import SENTIMENT, write_tiny_package
from support.threads import threads_restored as threads_restored

# By precision: rounding in another order, half the bits, and a quarter.
CLOSE = {torch.float32: 1e-6, torch.bfloat16: 0.03, torch.int8: 0.03}
LENGTHS = st.lists(st.integers(0, 20), min_size=1, max_size=9)


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    """As it is used."""
    with torch.inference_mode():
        yield


def run(layer: KernelLayer, x: Tensor, lengths: list[int], hidden: int, *, backwards: bool = False) -> Tensor:
    """What a layer puts out, beside other numbers that it must leave alone."""
    outputs = torch.full((len(lengths), x.shape[1], hidden + 3), 7.0)
    layer.run(x, torch.tensor(lengths), outputs[..., 1 : hidden + 1], backwards=backwards)
    assert (outputs[..., 0] == 7.0).all()
    assert (outputs[..., hidden + 1 :] == 7.0).all()
    return outputs[..., 1 : hidden + 1]


@settings(max_examples=20)
@given(
    hidden=st.integers(1, 40),
    width=st.integers(1, 35),
    lengths=LENGTHS,
    backwards=st.booleans(),
    seed=st.integers(0, 99),
)
def test_rows_of_any_lengths_come_out_as_from_torch(
    kernel: Kernel, hidden: int, width: int, lengths: list[int], backwards: bool, seed: int
) -> None:
    """To the accuracy of the arithmetic; padding is never read, and zero is written past a row's end."""
    torch.manual_seed(seed)
    module = nn.LSTM(width, hidden, batch_first=True)
    x = torch.full((len(lengths), max(lengths) + 2, width), float("nan"))
    for row, length in enumerate(lengths):
        x[row, :length] = torch.randn(length, width)
    for dtype in kernel.precisions:
        found = run(KernelLayer(module, kernel, dtype), x, lengths, hidden, backwards=backwards)
        for row, length in enumerate(lengths):
            assert (found[row, length:] == 0).all()
            if length:
                whole = x[row, :length].flip(0) if backwards else x[row, :length]
                expected = module(whole[None])[0][0]
                actual = found[row, :length].flip(0) if backwards else found[row, :length]
                torch.testing.assert_close(actual, expected, rtol=0, atol=CLOSE[dtype])


@settings(max_examples=30)
@given(hidden=st.integers(1, 40), lengths=LENGTHS, columns=st.integers(1, 3), backwards=st.booleans(), data=st.data())
def test_a_row_has_the_same_bits_alone_in_company_and_cut(
    kernel: Kernel, hidden: int, lengths: list[int], columns: int, backwards: bool, data: st.DataObject
) -> None:
    """From ids and from numbers, in every precision."""
    torch.manual_seed(hidden)
    tables = [torch.randn(30, 5 + column) for column in range(columns)]
    width = sum(table.shape[1] for table in tables)
    module = nn.LSTM(width, hidden, batch_first=True)
    ids = torch.randint(0, 30, (len(lengths), max(lengths), columns), dtype=torch.int32)
    for dtype in kernel.precisions:
        numbers = torch.rand(*ids.shape[:2], width) * 2 - 1
        for x, embeddings, bounded in ((ids, tables, False), (10 * numbers, [], False), (numbers, [], True)):
            layer = KernelLayer(module, kernel, dtype, embeddings, bounded=bounded)
            together = run(layer, x, lengths, hidden, backwards=backwards)
            for row, length in enumerate(lengths):
                alone = run(layer, x[row : row + 1, :length], [length], hidden, backwards=backwards)
                assert torch.equal(together[row, :length], alone[0])
                cut = data.draw(st.integers(0, length))
                steps = x[row : row + 1, :length].flip(1) if backwards else x[row : row + 1, :length]
                begun, state = layer(steps[:, :cut], None)
                rest, _ = layer(steps[:, cut:], state)
                pieces = torch.cat([begun, rest], dim=1)
                assert torch.equal(alone, pieces.flip(1) if backwards else pieces)


@settings(max_examples=20)
@given(hidden=st.integers(1, 40), lengths=LENGTHS, backwards=st.booleans(), seed=st.integers(0, 99))
def test_pooled_on_the_way_is_the_highest_of_what_comes_out(
    kernel: Kernel, hidden: int, lengths: list[int], backwards: bool, seed: int
) -> None:
    """The same bits; zeros of a row without steps, and NaN where an output is."""
    torch.manual_seed(seed)
    module = nn.LSTM(5, hidden, batch_first=True)
    x = torch.randn(len(lengths), max(lengths) + 1, 5)
    x[0, lengths[0] // 2, 0] = float("nan")
    for dtype in kernel.precisions:
        layer = KernelLayer(module, kernel, dtype)
        outputs = run(layer, x, lengths, hidden, backwards=backwards)
        pooled = torch.full((len(lengths), hidden + 3), 7.0)
        layer.run(x, torch.tensor(lengths), pooled[:, 1 : hidden + 1], backwards=backwards)
        for row, length in enumerate(lengths):
            expected = outputs[row, :length].amax(0) if length else torch.zeros(hidden)
            torch.testing.assert_close(pooled[row, 1 : hidden + 1], expected, rtol=0, atol=0, equal_nan=True)
        assert (pooled[:, 0] == 7.0).all()
        assert (pooled[:, hidden + 1 :] == 7.0).all()


@settings(max_examples=20)
@given(lengths=LENGTHS, seed=st.integers(0, 99))
def test_ids_give_what_their_embeddings_give(kernel: Kernel, lengths: list[int], seed: int) -> None:
    """The table of products says the same as the products, to rounding."""
    torch.manual_seed(seed)
    tables = [torch.randn(30, 6), torch.randn(50, 4)]
    module = nn.LSTM(10, 20, batch_first=True)
    ids = torch.randint(0, 30, (len(lengths), max(lengths), 2), dtype=torch.int32)
    x = torch.cat([table[ids[..., column]] for column, table in enumerate(tables)], dim=-1)
    for dtype in kernel.precisions:
        looked_up = run(KernelLayer(module, kernel, dtype, tables), ids, lengths, 20)
        computed = run(KernelLayer(module, kernel, dtype), x, lengths, 20)
        torch.testing.assert_close(looked_up, computed, rtol=0, atol=CLOSE[dtype])


def test_extreme_sums_reach_the_limits_and_what_is_not_finite_stays_in_its_row(kernel: Kernel) -> None:
    """Gates saturate as torch's do; a NaN makes that row's outputs NaN from there on, and no other's."""
    torch.manual_seed(0)
    module = nn.LSTM(4, 20, batch_first=True)
    for bounded in (False, True):
        x = torch.randn(3, 6, 4).tanh() if bounded else 1e4 * torch.randn(3, 6, 4)
        x[1, 2, 0] = float("nan")
        for dtype in kernel.precisions:
            found = run(KernelLayer(module, kernel, dtype, bounded=bounded), x, [6, 6, 6], 20)
            torch.testing.assert_close(found[::2], module(x[::2])[0], rtol=0, atol=CLOSE[dtype])
            assert found[1, :2].isfinite().all()
            assert found[1, 2:].isnan().all()


@settings(max_examples=30)
@given(hidden=st.integers(1, 70), width=st.integers(1, 70), length=st.integers(1, 12), seed=st.integers(0, 99))
def test_int8_is_exact_but_for_what_is_rounded_to_a_byte(
    kernel: Kernel, hidden: int, width: int, length: int, seed: int
) -> None:
    """Sums of whole numbers are those of numpy in int64: one more or less would show at once."""
    if torch.int8 not in kernel.precisions:
        pytest.skip("this variant has no int8")
    torch.manual_seed(seed)
    module = nn.LSTM(width, hidden, batch_first=True)
    for name, parameter in module.named_parameters():
        parameter.mul_(4.0 if "weight" in name else 1.0)
    x = torch.rand(1, length, width) * 2 - 1
    found = run(KernelLayer(module, kernel, torch.int8, bounded=True), x, [length], hidden)[0].numpy()

    (from_x, s_x), (from_h, s_h) = (
        (whole.numpy().astype(np.int64), scale.numpy().astype(np.float64) / 127)
        for whole, scale in (quantise(module.weight_ih_l0), quantise(module.weight_hh_l0))
    )
    bias = (module.bias_ih_l0 + module.bias_hh_l0).numpy()
    h, c = np.zeros(hidden, dtype=np.float32), np.zeros(hidden)
    for step, inputs in enumerate(x[0].numpy()):
        sums = bias + (from_x @ in_bytes(inputs)) * s_x + (from_h @ in_bytes(h)) * s_h
        i, f, g, o = np.split(sums, 4)
        c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
        # What the kernel gave is what it went on from: so a tie that falls otherwise does not spread.
        h = found[step]
        np.testing.assert_allclose(h, np.tanh(c) / (1 + np.exp(-o)), rtol=0, atol=2e-6)


def in_bytes(numbers: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Numbers in (-1, 1) in steps of 1/127."""
    return np.rint(numbers * np.float32(127)).astype(np.int64)


def test_a_column_of_weights_spans_a_byte_and_a_column_of_zeros_stays_one() -> None:
    """Each by its own scale."""
    whole, scales = quantise(torch.tensor([[0.5, -0.25, 0.1], [0.0, 0.0, 0.0], [-8.0, 4.0, 0.01]]))
    assert [[127, -64, 25], [0, 0, 0], [-127, 64, 0]] == whole.tolist()
    torch.testing.assert_close(scales, torch.tensor([0.5, 0.0, 8.0]) / 127)


def test_without_a_compiler_nothing_is_built_and_each_variant_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an earlier build left is gone, so that nothing stale is loaded."""
    library(VARIANTS[-1], tmp_path).write_bytes(b"stale")
    (tmp_path / "lstm-baseline.so").write_bytes(b"of an earlier version")
    monkeypatch.setenv("CC", "a-compiler-that-is-not-there")
    failed = build(tmp_path)
    assert [variant.name for variant in VARIANTS] == list(failed)
    assert "no C compiler" in failed["baseline"]
    assert [] == list(tmp_path.iterdir())


def test_a_plan_with_the_kernel_falls_back_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference serves, and the plan in force says why."""
    directory = write_tiny_package(tmp_path, SENTIMENT)
    key = ModelKey(directory.parent.name, directory.name)
    figures = CandidateFigures(executor=KERNEL, precision="float32")
    plan = DevicePlan(
        executor=KERNEL,
        precision="float32",
        device="a CPU",
        data="made up",
        rows=1,
        margin=0.01,
        batch_rows=(1,),
        batch_weights=(1.0,),
        versions=versions_of(KERNEL),
        candidates=(figures,),
    )
    write_plan(directory, device_kind(torch.device("cpu")), plan)
    monkeypatch.setattr("conveyor.engine.executors.candidates.find_kernel", lambda: None)
    executor = open_executor("cpu", "auto")
    executor.load(key, directory)

    in_force = executor.plan(key)
    assert ("torch", "float32") == (in_force.executor, in_force.precision)
    assert "no kernel was compiled" in in_force.source
    batch = Batch(np.ones((1, 3, 1), dtype=np.int32), np.array([3], dtype=np.int32), [Stair(1, 3)])
    assert np.isfinite(executor.run(key, batch).arrays["probabilities"]).all()


def test_what_the_kernel_does_not_compute_is_an_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other cells are left to the libraries, and precisions to CPUs that have instructions for them."""
    if find_kernel() is None:
        pytest.skip("no kernel was compiled here")
    device = torch.device("cpu")
    for candidate in CANDIDATES:
        if candidate.executor == KERNEL and candidate.obstacle(device, RecurrentSpec(hidden=8)) is None:
            assert "the kernel computes no gru" == candidate.obstacle(device, RecurrentSpec(cell="gru", hidden=8))
    monkeypatch.setattr("conveyor.engine.executors.candidates.find_kernel", lambda: Kernel(VARIANTS[-1]))
    obstacles = {c.precision: c.obstacle(device, RecurrentSpec(hidden=8)) for c in CANDIDATES if c.executor == KERNEL}
    assert {
        "float32": None,
        "bfloat16": "the kernel for this CPU (baseline) has no bfloat16",
        "int8": "the kernel for this CPU (baseline) has no int8",
    } == obstacles
