"""What tells one package from another of the same name and version."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from conveyor.errors import PackageError, Problem
from conveyor.repository.files import MANIFEST, WEIGHTS

__all__ = ["package_digest"]


def package_digest(directory: Path) -> bytes:
    """A digest of the files that decide a package's numbers: description and weights. 32 bytes.

    Raises:
        PackageError: One of them can't be read.
    """
    digest = sha256()
    for name in (MANIFEST, WEIGHTS):
        try:
            content = sha256((directory / name).read_bytes()).digest()
        except OSError as error:
            raise PackageError([Problem(name, "", f"cannot be read: {error.strerror}")]) from error
        digest.update(content)
    return digest.digest()
