"""Writing a package: all of it or nothing."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

from conveyor.domain import ModelKey
from conveyor.errors import PackageError, Problem
from conveyor.repository.files import CARD, MANIFEST, SAMPLES, TOKENIZER, VOCABULARY, WEIGHTS
from conveyor.repository.manifest import render_manifest
from conveyor.repository.package import read_package
from conveyor.spec import PackageSpec

__all__ = ["write_package"]


def write_package(
    directory: Path,
    spec: PackageSpec,
    tensors: Mapping[str, npt.NDArray[np.generic]],
    files: Mapping[str, str],
    card: str,
    samples: Sequence[Mapping[str, object]],
) -> None:
    """Writes a package that `read_package` accepts; equal arguments give equal bytes.

    The package appears at `directory` complete and on disk, or, whatever happens, not at all: it is written beside
    it under a hidden name, checked, and renamed. A version that exists is never changed.

    Args:
        directory: `…/<name>/<version>`, which must not exist; its parents are made.
        tensors: float32 or float16 arrays by name, stored as given.
        files: The text of `vocab.txt` or `tokenizer.json`, if the task has text.
        card: The text of `README.md`.
        samples: The lines of `samples.jsonl`, each with keys as in `Sample`, without `line`.

    Raises:
        FileExistsError: There is something at `directory`.
        PackageError: What was given does not make a package; the problems are those of `read_package`.
        ValueError: A sample holds a number that is not finite.
    """
    for name in files:
        if name not in (VOCABULARY, TOKENIZER):
            raise PackageError([Problem(name, "", f"cannot be written; accepted are {VOCABULARY} and {TOKENIZER}")])
    lines = [json.dumps(sample, ensure_ascii=False, allow_nan=False) + "\n" for sample in samples]
    contents = {
        MANIFEST: render_manifest(spec).encode(),
        WEIGHTS: save({name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}),
        SAMPLES: "".join(lines).encode(),
        CARD: card.encode(),
    } | {name: text.encode() for name, text in files.items()}

    directory = directory.absolute()
    if directory.exists():
        raise FileExistsError(f"{directory} exists; a version is never changed, write the next one")
    directory.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile.mkdtemp: its folders are closed to every other user, and stay so after the rename.
    unfinished = directory.parent / f".{directory.name}.{uuid.uuid4().hex}"
    unfinished.mkdir()
    try:
        for name, content in contents.items():
            _write(unfinished / name, content)
        read_package(unfinished, ModelKey(directory.parent.name, directory.name))
        _sync(unfinished)
        unfinished.rename(directory)
    except BaseException:
        shutil.rmtree(unfinished)
        raise
    _sync(directory.parent)


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    """Makes names in a folder durable: a rename without it may be lost with the power."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
