"""`weights.safetensors`: what the header says, whether it fits a network, and the arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from conveyor.errors import PackageError, Problem
from conveyor.repository.files import WEIGHTS, require_file

__all__ = ["HEADER_LIMIT_BYTES", "TensorInfo", "check_tensors", "read_header", "read_tensors"]

HEADER_LIMIT_BYTES = 16 * 2**20
_ACCEPTED_DTYPES = ("F16", "F32")


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A stored tensor: dtype in the names of safetensors (`F32`, `F16`), and shape."""

    dtype: str
    shape: tuple[int, ...]


def read_header(path: Path) -> Mapping[str, TensorInfo]:
    """Reads names, dtypes and shapes; the tensors themselves are not read.

    The safetensors library checks that the tensors fill the file exactly, without holes or overlaps.

    Raises:
        PackageError: The header is larger than `HEADER_LIMIT_BYTES` or broken, the file is shorter or longer than
            its header says, or a dtype is neither F32 nor F16.
    """
    with _open(path) as file:
        slices = {name: file.get_slice(name) for name in sorted(file.keys())}
        found = {name: TensorInfo(piece.get_dtype(), tuple(piece.get_shape())) for name, piece in slices.items()}
    problems = [
        Problem(path.name, name, f"has dtype {info.dtype}, accepted are {' and '.join(_ACCEPTED_DTYPES)}")
        for name, info in found.items()
        if info.dtype not in _ACCEPTED_DTYPES
    ]
    if problems:
        raise PackageError(problems)
    return found


def check_tensors(found: Mapping[str, TensorInfo], expected: Mapping[str, tuple[int, ...]]) -> list[Problem]:
    """Compares stored tensors with the names and shapes a network needs. An empty list says that they fit."""
    problems = []
    for name in sorted(found.keys() | expected.keys()):
        if name not in found:
            problems.append(Problem(WEIGHTS, name, f"is missing, its shape is {list(expected[name])}"))
        elif name not in expected:
            problems.append(Problem(WEIGHTS, name, "is not a tensor of this network"))
        elif found[name].shape != tuple(expected[name]):
            message = f"has shape {list(found[name].shape)}, the network needs {list(expected[name])}"
            problems.append(Problem(WEIGHTS, name, message))
    return problems


def read_tensors(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Reads every tensor as float32, whatever of float32 and float16 it is stored as.

    Raises:
        PackageError: As `read_header`, or a tensor holds a value that is not finite.
    """
    names = list(read_header(path))
    with _open(path) as file:
        tensors = {name: file.get_tensor(name).astype(np.float32, copy=False) for name in names}
    problems = [
        Problem(path.name, name, "holds values that are not finite")
        for name, tensor in tensors.items()
        if not np.isfinite(tensor).all()
    ]
    if problems:
        raise PackageError(problems)
    return tensors


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    """The file through the safetensors library, whose errors and those of the disk become `PackageError`."""
    require_file(path)
    try:
        with path.open("rb") as raw:
            header_bytes = int.from_bytes(raw.read(8), "little")
        # The library's own limit on the header is 100 MB; its parsed form takes several times that.
        if header_bytes > HEADER_LIMIT_BYTES:
            message = f"has a header of {header_bytes} bytes, at most {HEADER_LIMIT_BYTES} are accepted"
            raise PackageError([Problem(path.name, "", message)])
        with safe_open(path, framework="numpy") as file:
            yield file
    except OSError as error:
        raise PackageError([Problem(path.name, "", f"cannot be read: {error.strerror or error}")]) from error
    except SafetensorError as error:
        raise PackageError([Problem(path.name, "", f"is not a complete safetensors file: {error}")]) from error
