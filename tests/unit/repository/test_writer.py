"""Packages are written whole, equal, and never over another."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conveyor.errors import PackageError
from conveyor.repository.manifest import read_manifest, render_manifest
from conveyor.repository.package import read_package
from conveyor.repository.weights import read_tensors
from conveyor.repository.writer import write_package
from conveyor.spec import (
    ColumnSpec,
    ForecastSpec,
    PackageSpec,
    Provenance,
    RecurrentSpec,
    SeriesSpec,
    TagSpec,
    TextSpec,
)

SAMPLE = {"input": "天 \u2028 fine", "output": {"score": 0.1}}


def _arguments(spec: PackageSpec) -> dict[str, Any]:
    return {
        "spec": spec,
        "tensors": {"w": np.arange(6, dtype=np.float32).reshape(2, 3).T, "h": np.array(0.5, dtype=np.float16)},
        "files": {"vocab.txt": "token\tnaïve\n"},
        "card": "# mood\n",
        "samples": [SAMPLE],
    }


def test_what_is_written_is_read(tmp_path: Path, spec: PackageSpec) -> None:
    """A package reads back as what it was written from, tensors of any memory layout included."""
    arguments = _arguments(spec)
    write_package(tmp_path / "mood" / "3", **arguments)
    package = read_package(tmp_path / "mood" / "3")
    assert spec == package.spec
    assert [{"input": sample.input, "output": sample.output} for sample in package.samples] == [SAMPLE]
    assert (package.directory / "vocab.txt").read_text(encoding="utf-8") == "token\tnaïve\n"
    assert {name: info.dtype for name, info in package.tensors.items()} == {"w": "F32", "h": "F16"}
    for name, tensor in read_tensors(package.weights).items():
        np.testing.assert_array_equal(arguments["tensors"][name].astype(np.float32), tensor, strict=True)


def test_equal_arguments_give_equal_bytes(tmp_path: Path, spec: PackageSpec) -> None:
    """The bytes depend on the arguments alone, not on the order of the tensors."""
    arguments = _arguments(spec)
    write_package(tmp_path / "mood" / "1", **arguments)
    arguments["tensors"] = dict(reversed(arguments["tensors"].items()))
    write_package(tmp_path / "mood" / "2", **arguments)
    first, second = (
        {file.name: file.read_bytes() for file in (tmp_path / "mood" / version).iterdir()} for version in "12"
    )
    assert first == second


def test_an_existing_version_is_kept(package: Path, spec: PackageSpec) -> None:
    """A version that exists is neither changed nor added to."""
    before = {file.name: file.read_bytes() for file in package.iterdir()}
    with pytest.raises(FileExistsError, match="a version is never changed"):
        write_package(package, **_arguments(spec))
    assert before == {file.name: file.read_bytes() for file in package.iterdir()}


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"samples": []}, PackageError),
        ({"samples": [{"input": "x", "output": {"score": float("nan")}}]}, ValueError),
        ({"files": {}}, PackageError),
        ({"files": {"../escaped.txt": ""}}, PackageError),
        ({"tensors": {"w": np.zeros(1, dtype=np.float64)}}, PackageError),
    ],
    ids=["no samples", "not finite", "no vocabulary", "outside", "float64"],
)
def test_what_is_no_package_leaves_nothing(
    tmp_path: Path, spec: PackageSpec, change: dict[str, Any], error: type[Exception]
) -> None:
    """Arguments that make no package are refused, and nothing stays on the disk."""
    with pytest.raises(error):
        write_package(tmp_path / "mood" / "1", **(_arguments(spec) | change))
    assert [path for path in tmp_path.rglob("*") if path != tmp_path / "mood"] == []


def test_a_failed_write_leaves_nothing(tmp_path: Path, spec: PackageSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails half way leaves no part of a package."""

    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_package(tmp_path / "mood" / "1", **_arguments(spec))
    assert list((tmp_path / "mood").iterdir()) == []


def test_others_may_read(tmp_path: Path, spec: PackageSpec) -> None:
    """The folder's mode follows the umask, so that a server run by another user can read it."""
    before = os.umask(0o022)
    try:
        write_package(tmp_path / "mood" / "1", **_arguments(spec))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "mood" / "1").stat().st_mode) == 0o755


_TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
_SPECS = st.one_of(
    st.builds(
        TagSpec,
        format_version=st.just(1),
        name=st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}", fullmatch=True),
        description=_TEXT,
        license=_TEXT,
        data=st.lists(st.builds(Provenance, name=_TEXT, source=_TEXT, license=_TEXT), max_size=3).map(tuple),
        tolerance=st.floats(min_value=1e-9, max_value=0.1),
        recurrent=st.builds(RecurrentSpec, hidden=st.integers(1, 64), bidirectional=st.booleans()),
        task=st.just("tag"),
        text=st.just(
            TextSpec(
                tokenizer="character",
                columns=(
                    ColumnSpec(kind="token", size=9, dim=2),
                    ColumnSpec(kind="suffix", length=3, size=9, dim=2),
                ),
            )
        ),
        scheme=st.just("plain"),
        crf=st.booleans(),
        labels=st.lists(st.from_regex(r"[A-Z$.,'\"\\]{1,5}", fullmatch=True), min_size=2, unique=True).map(tuple),
    ),
    st.builds(
        ForecastSpec,
        format_version=st.just(1),
        name=st.just("load"),
        description=_TEXT,
        license=_TEXT,
        recurrent=st.builds(RecurrentSpec, hidden=st.integers(1, 64)),
        task=st.just("forecast"),
        series=st.builds(
            SeriesSpec,
            features=st.just(("a b", "ü")),
            targets=st.just(("ü",)),
            frequency=st.just("30min"),
            calendar=st.sampled_from([(), ("time_of_day", "day_of_week")]),
            half_life_steps=st.floats(min_value=1e-3, max_value=1e6),
        ),
        horizon=st.just(48),
        default_horizon=st.integers(1, 48),
        quantiles=st.just((0.1, 0.5, 0.9)),
        history=st.integers(1, 10_000),
    ),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(spec=_SPECS)
def test_manifest_reads_back_equal(tmp_path: Path, spec: PackageSpec) -> None:
    """Any spec survives being written to `model.toml` and read."""
    path = tmp_path / "model.toml"
    path.write_bytes(render_manifest(spec).encode())
    assert spec == read_manifest(path)
