"""What is known of each session of a model, in columns: some sixty bytes beside its state. Pure."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from conveyor.engine.sessions.index import KeyIndex, Keys
from conveyor.engine.sessions.slots import Slots
from conveyor.features.streams import NO_START, Scaling

__all__ = ["NOWHERE", "ON_DEVICE", "ON_HOST", "Rows", "SessionTable", "as_keys", "key_bytes"]

# Where the state of a session lies: nowhere so long as it is all zeros, as at its beginning.
NOWHERE: Final = -1
ON_DEVICE: Final = 0
ON_HOST: Final = 1

_FEWEST_ROWS: Final = 64

Rows = npt.NDArray[np.int32]


def as_keys(sessions: npt.NDArray[np.uint8]) -> Keys:
    """uint8 [keys, 16] → uint64 [keys, 2]."""
    return np.ascontiguousarray(sessions).view(np.uint64)


def key_bytes(keys: Keys) -> list[bytes]:
    """The sixteen bytes of each key."""
    raw = np.ascontiguousarray(keys).tobytes()
    return [raw[first : first + 16] for first in range(0, len(raw), 16)]


class SessionTable:
    """The sessions of one model, each in a row that is its own until it ends.

    keys: uint64 [rows, 2].
    used_at: float64, monotonic seconds of the last use.
    steps: int64, of finished appends.
    start_us, offset_us: int64, as `read_start` gives them; `NO_START` where unknown.
    tier, slot: int8, int32: where the state lies.
    live: bool, whether the row is a session's.
    running: bool, whether an append is under way, part of whose steps are in the state already.
    unsaved: bool, whether it was used since it was last written to the state directory.
    saved: bool, whether the state directory has it.
    mean, variance, weight: float64 [rows, features], of `Scaling`.
    """

    def __init__(self, num_features: int) -> None:
        self._index = KeyIndex()
        self._rows = Slots()
        self.keys = np.zeros((0, 2), dtype=np.uint64)
        self.used_at = np.zeros(0)
        self.steps = np.zeros(0, dtype=np.int64)
        self.start_us = np.zeros(0, dtype=np.int64)
        self.offset_us = np.zeros(0, dtype=np.int64)
        self.tier = np.zeros(0, dtype=np.int8)
        self.slot = np.zeros(0, dtype=np.int32)
        self.live = np.zeros(0, dtype=np.bool_)
        self.running = np.zeros(0, dtype=np.bool_)
        self.unsaved = np.zeros(0, dtype=np.bool_)
        self.saved = np.zeros(0, dtype=np.bool_)
        self.mean = np.zeros((0, num_features))
        self.variance = np.zeros((0, num_features))
        self.weight = np.zeros((0, num_features))

    def __len__(self) -> int:
        return self._rows.capacity - self._rows.available

    def find(self, keys: Keys) -> Rows:
        """The row of each key, `ABSENT` where there is none."""
        return self._index.find(keys, self.keys)

    def add(self, keys: Keys, used_at: float | npt.NDArray[np.float64]) -> Rows:
        """Rows for keys that differ and are not inside: sessions without any step."""
        if self._rows.available < len(keys):
            self._grow(max(len(keys), _FEWEST_ROWS, self._rows.capacity))
        rows = self._rows.take(len(keys))
        self.keys[rows] = keys
        self.used_at[rows] = used_at
        self.steps[rows] = self.offset_us[rows] = 0
        self.start_us[rows] = NO_START
        self.tier[rows] = NOWHERE
        self.live[rows] = self.unsaved[rows] = True
        self.running[rows] = self.saved[rows] = False
        self.set_scaling(rows, Scaling(*np.zeros((3, len(keys), self.mean.shape[1]))))
        self._index.add(rows, self.keys)
        return rows

    def remove(self, rows: Rows) -> None:
        """Forgets sessions."""
        self._index.remove(rows, self.keys)
        self.live[rows] = self.unsaved[rows] = False
        self._rows.give_back(rows)

    def use(self, rows: Rows, now: float) -> None:
        """Notes that sessions were used."""
        self.used_at[rows] = now
        self.unsaved[rows] = True

    def scaling(self, rows: Rows) -> Scaling:
        """A copy of what the encoding of later steps depends on."""
        return Scaling(self.mean[rows], self.variance[rows], self.weight[rows])

    def set_scaling(self, rows: Rows, scaling: Scaling) -> None:
        """Takes over what an encoding left."""
        self.mean[rows], self.variance[rows], self.weight[rows] = scaling.mean, scaling.variance, scaling.weight

    def least_recently_used(self, candidates: npt.NDArray[np.bool_], count: int) -> Rows:
        """The `count` of the candidates that were used longest ago, or all of them. candidates: bool [rows]."""
        rows = np.flatnonzero(candidates)
        if count < len(rows):
            rows = rows[np.argpartition(self.used_at[rows], count)[:count]]
        return rows.astype(np.int32)

    def _grow(self, more: int) -> None:
        # Columns are copied, and doubled: what is not in use of them was never touched, and costs nothing.
        self._rows.grow(more)
        for name, column in vars(self).items():
            if isinstance(column, np.ndarray):
                grown = np.zeros((self._rows.capacity, *column.shape[1:]), dtype=column.dtype)
                grown[: len(column)] = column
                setattr(self, name, grown)
