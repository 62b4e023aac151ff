"""Headers that lie, tensors that do not fit, and the arrays."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save, save_file

from conveyor.errors import PackageError, Problem
from conveyor.repository.weights import HEADER_LIMIT_BYTES, TensorInfo, check_tensors, read_header, read_tensors

TENSORS = {
    "bias": np.array([1.5, -2.0], dtype=np.float16),
    "empty": np.zeros((0, 3), dtype=np.float32),
    "scalar": np.array(3.0, dtype=np.float32),
    "weight": np.arange(6, dtype=np.float32).reshape(2, 3),
}


def _with_header(header: dict[str, object], data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def _f32(start: int, end: int, *shape: int) -> dict[str, object]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}


def test_reads_every_tensor_as_float32(tmp_path: Path) -> None:
    """Values and shapes are those that were stored; the dtype is float32."""
    path = tmp_path / "weights.safetensors"
    save_file(TENSORS, path)
    read = read_tensors(path)
    assert TENSORS.keys() == read.keys()
    for name, tensor in TENSORS.items():
        assert np.float32 == read[name].dtype
        np.testing.assert_array_equal(tensor.astype(np.float32), read[name], strict=True)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x10\x00\x00",
        _with_header({"__metadata__": {"padding": "x" * HEADER_LIMIT_BYTES}}, b""),
        (2**63).to_bytes(8, "little"),
        (100).to_bytes(8, "little") + b"{}",
        _with_header({"a": _f32(0, 8, 2)}, bytes(4)),
        _with_header({"a": _f32(0, 8, 2)}, bytes(12)),
        _with_header({"a": _f32(0, 8, 3)}, bytes(8)),
        _with_header({"a": _f32(0, 4, 1), "b": _f32(8, 12, 1)}, bytes(12)),
        _with_header({"a": _f32(0, 8, 2), "b": _f32(4, 12, 2)}, bytes(12)),
        _with_header({"a": _f32(0, 4, 2**62, 4)}, bytes(4)),
        _with_header({"a": _f32(0, -4, 1)}, bytes(4)),
        save({"a": np.zeros(2, dtype=np.float64)}),
    ],
    ids=[
        *("empty", "no length", "header too large", "length absurd", "header cut", "data cut", "data left over"),
        *("shape too large", "hole", "overlap", "shape overflows", "negative offset", "float64"),
    ],
)
def test_refuses(tmp_path: Path, content: bytes) -> None:
    """A file whose header is broken or does not describe it exactly is refused as a package problem."""
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(PackageError) as refusal:
        read_header(path)
    assert {"weights.safetensors"} == {problem.file for problem in refusal.value.problems}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(cut=st.integers(min_value=0, max_value=len(save(TENSORS)) - 1))
def test_refuses_any_truncation(tmp_path: Path, cut: int) -> None:
    """However much of the end is missing, the file is refused, not read in part."""
    path = tmp_path / "weights.safetensors"
    path.write_bytes(save(TENSORS)[:cut])
    with pytest.raises(PackageError):
        read_tensors(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_refuses_values_that_are_not_finite(tmp_path: Path, value: float) -> None:
    """A tensor with a NaN or an infinity is refused by name."""
    path = tmp_path / "weights.safetensors"
    save_file({"fine": np.zeros(1, dtype=np.float32), "broken": np.array([0, value], dtype=np.float16)}, path)
    with pytest.raises(PackageError) as refusal:
        read_tensors(path)
    expected = Problem("weights.safetensors", "broken", "holds values that are not finite")
    assert (expected,) == refusal.value.problems


def test_check_tensors_names_each_that_does_not_fit() -> None:
    """Missing, unexpected and misshapen tensors are each one problem; those that fit are none."""
    found = {"a": TensorInfo("F32", (2, 3)), "b": TensorInfo("F16", (2,)), "extra": TensorInfo("F32", ())}
    problems = check_tensors(found, {"a": (2, 3), "b": (3,), "lost": (4,)})
    assert [str(problem) for problem in problems] == [
        "weights.safetensors: b: has shape [2], the network needs [3]",
        "weights.safetensors: extra: is not a tensor of this network",
        "weights.safetensors: lost: is missing, its shape is [4]",
    ]


def test_check_tensors_accepts_what_fits() -> None:
    """Equal names and shapes are no problem, whatever of the two dtypes is stored."""
    assert check_tensors({"a": TensorInfo("F16", (2, 3))}, {"a": (2, 3)}) == []
