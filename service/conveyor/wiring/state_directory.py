"""The state directory as a whole: one server at a time."""

from __future__ import annotations

import fcntl
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

__all__ = ["claim"]

_LOCK = "lock"


def claim(path: Path | None) -> AbstractContextManager[object]:
    """Keeps a state directory, if there is one, from other servers until the end of what is returned. It is made for
    this user alone.

    Raises:
        OSError: It can't be made or written to, or another server has it.
    """
    if path is None:
        return nullcontext()
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = (path / _LOCK).open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise OSError(error.errno, "another server uses it") from error
    return lock
