"""A complete, tiny package for each test to take apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from conveyor.errors import PackageError
from conveyor.repository.package import read_package
from conveyor.repository.writer import write_package
from conveyor.spec import ColumnSpec, PackageSpec, RecurrentSpec, SentimentSpec, TextSpec

PositiveSample = {"input": "a fine day", "output": {"label": "positive", "score": 0.75}}


@pytest.fixture
def spec() -> SentimentSpec:
    """The description of a package named `mood`."""
    return SentimentSpec(
        format_version=1,
        name="mood",
        description="Says whether a sentence is glad.",
        license="Apache-2.0",
        recurrent=RecurrentSpec(hidden=4),
        task="sentiment",
        text=TextSpec(tokenizer="word", columns=(ColumnSpec(kind="token", size=3, dim=2),)),
        pooling="mean",
        labels=("negative", "positive"),
    )


@pytest.fixture
def package(tmp_path: Path, spec: PackageSpec) -> Path:
    """The folder of a package that is in order."""
    directory = tmp_path / "mood" / "1"
    write_package(
        directory,
        spec,
        tensors={"head.bias": np.arange(2, dtype=np.float32), "head.weight": np.eye(2, 4, dtype=np.float16)},
        files={"vocab.txt": "token\tfine\n"},
        card="# mood\n",
        samples=[PositiveSample],
    )
    return directory


@pytest.fixture
def problems(package: Path) -> Callable[[], list[str]]:
    """Reads the package, which must be refused, and returns its problems as text."""

    def read() -> list[str]:
        with pytest.raises(PackageError) as refusal:
            read_package(package)
        return [str(problem) for problem in refusal.value.problems]

    return read
