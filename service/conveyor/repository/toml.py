"""TOML files of a package, within limits."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from conveyor.errors import PackageError, Problem
from conveyor.repository.files import read_text

__all__ = ["TOML_LIMIT_BYTES", "read_toml", "with_tuples"]

TOML_LIMIT_BYTES = 2**20


def read_toml(path: Path) -> dict[str, Any]:
    """Reads a TOML document of at most `TOML_LIMIT_BYTES`.

    Raises:
        PackageError: As `read_text`, or it is not TOML.
    """
    text = read_text(path, TOML_LIMIT_BYTES)
    try:
        return tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError is one; so is an integer of too many digits
        raise PackageError([Problem(path.name, "", f"is not TOML: {error}")]) from error
    except RecursionError as error:
        raise PackageError([Problem(path.name, "", "is nested too deeply")]) from error


def with_tuples(value: Any) -> Any:
    """TOML arrays as tuples, which is what strict validation takes for the immutable fields of a spec."""
    if isinstance(value, dict):
        return {key: with_tuples(item) for key, item in value.items()}
    if isinstance(value, list):
        return tuple(with_tuples(item) for item in value)
    return value
