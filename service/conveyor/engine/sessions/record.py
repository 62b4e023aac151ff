"""One session as bytes: for the state directory, and signed for another server."""

from __future__ import annotations

import hmac
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import numpy.typing as npt

from conveyor.domain import ModelKey
from conveyor.errors import InvalidArgument

__all__ = ["BadRecord", "Record", "pack", "pack_many", "sign", "unpack", "verify"]

# What follows, in which order and meaning; another layout gets another number.
_SCHEMA = 1
# schema, features, numbers of the state, steps, start_us, offset_us
_HEADER = struct.Struct("<HHIqqq")
_CHECKSUM = struct.Struct("<I")

_MAGIC = b"conveyor session"
_FORMAT = 1
# format, bytes of the model's name and version
_ENVELOPE = struct.Struct("<HHH")
_DIGEST_BYTES = sha256().digest_size


class BadRecord(ValueError):
    """These bytes are no record that can be read here."""


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """A session between two appends.

    scaling: float64 [3, features]: mean, variance, weight.
    state: float32 [width], as `SessionStates.read` gives it.
    """

    steps: int
    start_us: int
    offset_us: int
    scaling: npt.NDArray[np.float64]
    state: npt.NDArray[np.float32]


def pack(record: Record) -> bytes:
    """The bytes of a record, little-endian, with a checksum."""
    return pack_many([record.steps], [record.start_us], [record.offset_us], record.scaling[None], record.state[None])[0]


def pack_many(
    steps: Sequence[int],
    starts_us: Sequence[int],
    offsets_us: Sequence[int],
    scaling: npt.NDArray[np.float64],
    states: npt.NDArray[np.float32],
) -> list[bytes]:
    """The bytes of many records. scaling: float64 [sessions, 3, features]; states: float32 [sessions, width]."""
    num_features, width = scaling.shape[2], states.shape[1]
    scaling_raw, states_raw = scaling.astype("<f8").tobytes(), states.astype("<f4").tobytes()
    scaling_bytes, state_bytes = 24 * num_features, 4 * width
    found = []
    for index, numbers in enumerate(zip(steps, starts_us, offsets_us, strict=True)):
        body = (
            _HEADER.pack(_SCHEMA, num_features, width, *numbers)
            + scaling_raw[index * scaling_bytes : (index + 1) * scaling_bytes]
            + states_raw[index * state_bytes : (index + 1) * state_bytes]
        )
        found.append(body + _CHECKSUM.pack(zlib.crc32(body)))
    return found


def unpack(raw: bytes, num_features: int, width: int) -> Record:
    """The record, of a model of so many features whose states have so many numbers.

    Raises:
        BadRecord: It is damaged, of another schema or of another model.
    """
    if len(raw) < _HEADER.size + _CHECKSUM.size:
        raise BadRecord("is too short")
    schema, features, numbers, steps, start_us, offset_us = _HEADER.unpack_from(raw)
    if schema != _SCHEMA:
        raise BadRecord(f"has schema {schema}, and {_SCHEMA} is read here")
    size = _HEADER.size + 24 * features + 4 * numbers
    if len(raw) != size + _CHECKSUM.size or _CHECKSUM.unpack_from(raw, size)[0] != zlib.crc32(raw[:size]):
        raise BadRecord("is damaged")
    if (features, numbers) != (num_features, width):
        raise BadRecord("is of another model")
    scaling = np.frombuffer(raw, "<f8", 3 * features, _HEADER.size).reshape(3, features)
    state = np.frombuffer(raw, "<f4", numbers, _HEADER.size + 24 * features)
    return Record(steps, start_us, offset_us, scaling.astype(np.float64), state.astype(np.float32))


def sign(record: bytes, model: ModelKey, package: bytes, key: bytes) -> bytes:
    """A record on its way to another server.

    Args:
        package: The digest of the model's package.
        key: Whoever has it can make what `verify` accepts.
    """
    names = model.name.encode(), model.version.encode()
    body = _MAGIC + _ENVELOPE.pack(_FORMAT, *map(len, names)) + b"".join(names) + package + record
    return body + hmac.digest(key, body, sha256)


def verify(blob: bytes, model: ModelKey, package: bytes, key: bytes) -> bytes:
    """The record inside.

    Raises:
        InvalidArgument: It is of an unknown format, was altered or signed with another key, or is of another package.
    """
    first = len(_MAGIC) + _ENVELOPE.size
    if len(blob) < first + _DIGEST_BYTES or not blob.startswith(_MAGIC):
        raise InvalidArgument("the state is not one that was exported here: its format is unknown")
    number, name_bytes, version_bytes = _ENVELOPE.unpack_from(blob, len(_MAGIC))
    if number != _FORMAT:
        raise InvalidArgument(f"the state has format {number}, and only format {_FORMAT} is accepted")
    body, digest = blob[:-_DIGEST_BYTES], blob[-_DIGEST_BYTES:]
    if not hmac.compare_digest(digest, hmac.digest(key, body, sha256)):
        raise InvalidArgument("the state was altered, or signed with another key than this server's CONVEYOR_STATE_KEY")
    package_at = first + name_bytes + version_bytes
    name, version = body[first : first + name_bytes].decode(), body[first + name_bytes : package_at].decode()
    if (name, version) != (model.name, model.version):
        raise InvalidArgument(f"the state is of model {name!r} version {version}")
    if body[package_at : package_at + len(package)] != package:
        raise InvalidArgument(f"the state is of another package of model {name!r} version {version}")
    return body[package_at + len(package) :]
