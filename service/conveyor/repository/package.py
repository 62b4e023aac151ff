"""One package on disk: everything that can be checked without running it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from conveyor.domain import ModelKey
from conveyor.errors import PackageError, Problem
from conveyor.repository.files import CARD, MANIFEST, SAMPLES, WEIGHTS, check_files, read_text
from conveyor.repository.manifest import read_manifest
from conveyor.repository.plan_lock import read_plan_lock
from conveyor.repository.samples import Sample, read_samples
from conveyor.repository.weights import TensorInfo, read_header
from conveyor.spec import PackageSpec

__all__ = ["VERSION_PATTERN", "Package", "read_package"]

VERSION_PATTERN = re.compile(r"[1-9][0-9]*")
_CARD_LIMIT_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Package:
    """A package that was read and found in order.

    directory: absolute, as are the paths in it.
    weights: path of `weights.safetensors`; only its header has been read, into `tensors`.
    """

    key: ModelKey
    directory: Path
    spec: PackageSpec
    weights: Path
    samples: tuple[Sample, ...]
    tensors: Mapping[str, TensorInfo]


def read_package(directory: Path, key: ModelKey | None = None) -> Package:
    """Reads and checks a package. Nothing in it is executed, and its tensors are not read.

    Whether vocabulary and tensors fit the description is for those who use them to check.

    Args:
        directory: `…/<name>/<version>`.
        key: What the package must be; by default what the folders are called.

    Raises:
        PackageError: With every problem of every file.
    """
    path = directory.absolute()
    key = key or ModelKey(path.parent.name, path.name)
    if not path.is_dir():
        raise PackageError([Problem(str(directory), "", "is not a folder")])

    problems: list[Problem] = []
    spec: PackageSpec | None = None
    tensors: Mapping[str, TensorInfo] = {}
    samples: tuple[Sample, ...] = ()
    with _collecting(problems):
        spec = read_manifest(path / MANIFEST)
    problems += _check_key(key, spec)
    problems += check_files(path, spec)
    with _collecting(problems):
        tensors = read_header(path / WEIGHTS)
    with _collecting(problems):
        samples = read_samples(path / SAMPLES, spec)
    with _collecting(problems):
        read_text(path / CARD, _CARD_LIMIT_BYTES)
    with _collecting(problems):
        read_plan_lock(path)
    if problems or spec is None:
        # A missing file is found by its reader and by the check of files; it is said once.
        raise PackageError(list(dict.fromkeys(problems)))
    return Package(key, path, spec, path / WEIGHTS, samples, tensors)


def _check_key(key: ModelKey, spec: PackageSpec | None) -> list[Problem]:
    problems = []
    if spec is not None and spec.name != key.name:
        problems.append(Problem(MANIFEST, "name", f"is {spec.name!r}, but the package lies under {key.name!r}"))
    if not VERSION_PATTERN.fullmatch(key.version):
        message = "is not a version; a version is a positive integer without leading zeros"
        problems.append(Problem(key.version, "", message))
    return problems


@contextmanager
def _collecting(problems: list[Problem]) -> Iterator[None]:
    """Keeps the problems of a part, so that the other parts are read too."""
    try:
        yield
    except PackageError as error:
        problems.extend(error.problems)
