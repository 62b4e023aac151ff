"""Ids of sessions: opaque to callers, while a front end reads from them which model to ask, and which session of it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from conveyor.domain import ModelKey
from conveyor.errors import NotFound
from conveyor.wire.sessions import KEY_BYTES

__all__ = ["SessionId", "no_such_session", "split_ids"]

_DIGITS = 2 * KEY_BYTES
_ID = re.compile(rf"(.{{1,64}})\.([1-9][0-9]{{0,17}})\.([0-9a-f]{{{_DIGITS}}})")

# An engine is chosen by the first byte of a key: a session that shares it is where the other is.
_PLACE_BYTES = 1


def no_such_session() -> NotFound:
    """What is said of any id that names nothing here, whether or not it ever could."""
    return NotFound("there is no such session here; it was never opened, was closed, or was idle for too long")


@dataclass(frozen=True, slots=True)
class SessionId:
    """One session. key: 16 bytes, random, so that nobody guesses another's."""

    model: ModelKey
    key: bytes

    def __str__(self) -> str:
        return f"{self.model.name}.{self.model.version}.{self.key.hex()}"

    @classmethod
    def new(cls, model: ModelKey) -> SessionId:
        """An id that no session has."""
        return cls(model, os.urandom(KEY_BYTES))

    @classmethod
    def parse(cls, text: str) -> SessionId:
        """Reads an id.

        Raises:
            NotFound: It can't be one of ours.
        """
        found = _ID.fullmatch(text)
        if found is None:
            raise no_such_session()
        name, version, digits = found.groups()
        return cls(ModelKey(name, version), bytes.fromhex(digits))

    def beside(self) -> SessionId:
        """A new id whose session lives in the same engine, for a fork."""
        return SessionId(self.model, self.key[:_PLACE_BYTES] + os.urandom(KEY_BYTES - _PLACE_BYTES))


def split_ids(texts: list[str]) -> tuple[list[str], bytes] | None:
    """The models of many ids, each as `name.version.`, and their keys one after another; None if one is not an id.

    Without a regular expression for each: a call names a thousand sessions. Whether the models exist is not looked at.
    """
    digits = "".join([text[-_DIGITS:] for text in texts])
    if len(digits) != _DIGITS * len(texts) or digits.lower() != digits:
        return None
    try:
        keys = bytes.fromhex(digits)
    except ValueError:
        return None
    # White space is skipped, and leaves less.
    return None if len(keys) != KEY_BYTES * len(texts) else ([text[:-_DIGITS] for text in texts], keys)
