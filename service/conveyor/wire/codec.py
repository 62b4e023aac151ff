"""Messages to bytes and back: a byte that says which message it is, then MessagePack; arrays as they lie in memory."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

__all__ = ["Codec"]

_MOST_KINDS = 256


class Codec:
    """Encodes and decodes messages of some kinds, which are dataclasses of plain values, paths and arrays.

    Args:
        kinds: The types that can be sent. Both ends have the same, in the same order.
    """

    def __init__(self, kinds: Sequence[type]) -> None:
        assert len(kinds) <= _MOST_KINDS
        self._numbers = {kind: number for number, kind in enumerate(kinds)}
        self._encoder = msgspec.msgpack.Encoder(enc_hook=_plain)
        self._decoders: list[msgspec.msgpack.Decoder[Any]] = [
            msgspec.msgpack.Decoder(kind, dec_hook=_restore) for kind in kinds
        ]

    def encode(self, message: object) -> bytes:
        """The bytes of a message.

        Raises:
            KeyError: It is of another kind.
        """
        return bytes((self._numbers[type(message)],)) + self._encoder.encode(message)

    def decode(self, raw: bytes | memoryview) -> object:
        """The message; its arrays are copies that may be written to.

        Raises:
            ValueError: These are not the bytes of a message.
        """
        if not raw or raw[0] >= len(self._decoders):
            raise ValueError("a message of an unknown kind")
        return self._decoders[raw[0]].decode(memoryview(raw)[1:])


_dtype = functools.cache(np.dtype)


def _plain(value: object) -> object:
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be sent")


def _restore(kind: Any, value: Any) -> object:
    if kind is Path:
        return Path(value)
    dtype, shape, raw = value
    return np.ndarray(shape, _dtype(dtype), bytearray(raw))
