"""What `read_package` accepts and how it names what it refuses."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from conveyor.domain import ModelKey
from conveyor.errors import PackageError, Problem
from conveyor.repository.package import read_package
from conveyor.repository.weights import TensorInfo
from conveyor.spec import PackageSpec

Problems = Callable[[], list[str]]


def _replace(package: Path, old: str, new: str) -> None:
    manifest = package / "model.toml"
    text = manifest.read_text(encoding="utf-8")
    assert old in text
    manifest.write_text(text.replace(old, new), encoding="utf-8")


def test_reads_a_package(package: Path, spec: PackageSpec) -> None:
    """A package in order is read: its key from the folders, its spec, samples and the header of its weights."""
    read = read_package(package)
    assert ModelKey("mood", "1") == read.key
    assert spec == read.spec
    assert package / "weights.safetensors" == read.weights
    assert {"head.bias": TensorInfo("F32", (2,)), "head.weight": TensorInfo("F16", (2, 4))} == read.tensors
    assert [sample.input for sample in read.samples] == ["a fine day"]


def test_every_problem_of_every_file_is_named(package: Path, problems: Problems) -> None:
    """One reading finds the problems of all files, each by file and field."""
    _replace(package, "hidden = 4", "hidden = 0")
    (package / "weights.safetensors").write_bytes(b"")
    (package / "samples.jsonl").write_text("{}\n", encoding="utf-8")
    (package / "README.md").write_bytes(b"\xff")
    found = problems()
    assert "model.toml: recurrent.hidden: should be greater than or equal to 1, got 0" in found
    assert {"model.toml", "weights.safetensors", "samples.jsonl", "README.md"} == {p.split(":")[0] for p in found}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("hidden = 4", 'hidden = "4"', "recurrent.hidden: should be a valid integer, got '4'"),
        (
            "hidden = 4",
            "hidden = 4\nunits = 8",
            "recurrent.units: is an unknown key; accepted here are bidirectional, cell, hidden, layers",
        ),
        ("size = 3", "size = 1", "text.columns[0].size: should be greater than or equal to 2, got 1"),
        (
            "size = 3",
            "size = 3, depth = 1",
            "text.columns[0].depth: is an unknown key; accepted here are classes, dim, kind, length, size",
        ),
        (
            "size = 3",
            "size = 3, classes = 1",
            "text.columns[0]: 'classes' is required for kinds 'begins' and 'ends' and accepted for no other",
        ),
        ('pooling = "mean"', 'pooling = "median"', "pooling: should be 'last', 'mean' or 'max', got 'median'"),
        ('pooling = "mean"', "", "pooling: is missing"),
        ('task = "sentiment"', "", "task: is missing; accepted are 'forecast', 'sentiment', 'tag'"),
        (
            'task = "sentiment"',
            'task = "translate"',
            "task: 'translate' is unknown; accepted are 'sentiment', 'tag', 'forecast'",
        ),
        ("tolerance = 0.0001", "tolerance = nan", "tolerance: should be a finite number, got nan"),
        ('"negative"', '"positive"', "labels must not repeat"),
        ('name = "mood"', 'name = "tone"', "name: is 'tone', but the package lies under 'mood'"),
        ("format_version = 1", "format_version = 2", "format_version: 2 is not supported, this server reads 1"),
        ("format_version = 1", "format_version = true", "format_version: True is not supported, this server reads 1"),
    ],
)
def test_names_the_field(package: Path, problems: Problems, old: str, new: str, expected: str) -> None:
    """A wrong value, an unknown key or a missing one is named in TOML notation, with what is accepted."""
    _replace(package, old, new)
    assert [f"model.toml: {expected}"] == problems()


@pytest.mark.parametrize(
    "text",
    [b"format_version = ", b"x = " + b"[" * 100_000, b"x = " + b"9" * 5_000, b"x = '\xff'", b"#" * (2**20 + 1)],
    ids=["syntax", "nesting", "digits", "encoding", "size"],
)
def test_hostile_manifest(package: Path, problems: Problems, text: bytes) -> None:
    """Whatever bytes `model.toml` holds, the answer is one problem of that file."""
    (package / "model.toml").write_bytes(text)
    assert [problem.split(":")[0] for problem in problems()] == ["model.toml"]


@pytest.mark.parametrize("name", ["model.toml", "weights.safetensors", "samples.jsonl", "README.md", "vocab.txt"])
def test_missing_file(package: Path, problems: Problems, name: str) -> None:
    """A file that is missing is named, once."""
    (package / name).unlink()
    assert [f"{name}: is missing"] == problems()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("model.pt", "may be a pickle, which can execute code"),
        ("pytorch_model.BIN", "may be a pickle, which can execute code"),
        ("state.pkl", "may be a pickle, which can execute code"),
        ("modeling.py", "can execute code"),
        ("kernel.so", "can execute code"),
        ("notes.txt", "is not part of a package"),
        ("tokenizer.json", "is not part of a package"),
        (".hidden", "is not part of a package"),
    ],
)
def test_unexpected_file(package: Path, problems: Problems, name: str, reason: str) -> None:
    """A file outside the known list is refused, and one that could execute code is called that."""
    (package / name).write_bytes(b"")
    (found,) = problems()
    assert found.startswith(f"{name}: {reason}")


def test_unexpected_folder(package: Path, problems: Problems) -> None:
    """A package holds files only."""
    (package / "assets").mkdir()
    (found,) = problems()
    assert found.startswith("assets: is a folder")


def test_links_and_pipes_are_refused(package: Path, problems: Problems, tmp_path: Path) -> None:
    """A link is not followed and a pipe is not waited for."""
    (package / "vocab.txt").rename(tmp_path / "vocab.txt")
    (package / "vocab.txt").symlink_to(tmp_path / "vocab.txt")
    (package / "samples.jsonl").unlink()
    os.mkfifo(package / "samples.jsonl")
    expected = "is not a regular file; a package holds its files, not links"
    assert [f"samples.jsonl: {expected}", f"vocab.txt: {expected}"] == problems()


def test_folder_must_be_a_version(package: Path) -> None:
    """A folder with a leading zero is not a version."""
    renamed = package.rename(package.with_name("01"))
    with pytest.raises(PackageError) as refusal:
        read_package(renamed)
    assert [problem.file for problem in refusal.value.problems] == ["01"]


def test_no_folder(tmp_path: Path) -> None:
    """A path that is no folder is refused as such."""
    with pytest.raises(PackageError) as refusal:
        read_package(tmp_path / "absent")
    assert (Problem(str(tmp_path / "absent"), "", "is not a folder"),) == refusal.value.problems


def test_dtype_of_weights(package: Path, problems: Problems) -> None:
    """A tensor that is neither float32 nor float16 is refused by name."""
    save_file({"head.bias": np.zeros(2, dtype=np.int64)}, package / "weights.safetensors")
    assert problems() == ["weights.safetensors: head.bias: has dtype I64, accepted are F16 and F32"]
