"""Opening data files: plain or xz-compressed UTF-8, verified by their checksum."""

from __future__ import annotations

import hashlib
import lzma
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from conveyor.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["open_text", "verify"]


@contextmanager
def open_text(path: Path) -> Iterator[IO[str]]:
    """Opens a file for reading as UTF-8, decompressed if its name ends in `.xz`; line ends are left as they are.

    Raises:
        InvalidArgument: The file does not exist, or is not what its name says.
    """
    try:
        if path.suffix == ".xz":
            with lzma.open(path, "rt", encoding="utf-8", newline="") as file:
                yield file
        else:
            with path.open(encoding="utf-8", newline="") as file:
                yield file
    except FileNotFoundError as error:
        raise InvalidArgument(f"there is no data file {path}") from error
    except (lzma.LZMAError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{path} cannot be read: {error}") from error


def verify(path: Path, sha256: str) -> None:
    """Checks that a file is the one a recipe was written for.

    Raises:
        InvalidArgument: The file does not exist, or its SHA-256 differs.
    """
    if not path.is_file():
        raise InvalidArgument(f"there is no data file {path}; the data folder is set by --data or CONVEYOR_DATA_DIR")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise InvalidArgument(f"{path} is not the file of the recipe: SHA-256 {found}, expected {sha256}")
