"""Sixteen-byte keys to row numbers, many at a time, in a few bytes a key. Pure.

A dictionary would take some 150 bytes for each, which is a seventh of a small state.
"""

from __future__ import annotations

import secrets
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["ABSENT", "KeyIndex", "Keys"]

# Keys as two words each: uint64 [keys, 2].
Keys = npt.NDArray[np.uint64]

ABSENT: Final = -1
# A cell whose key was removed: others may lie behind it.
_REMOVED: Final = -2

_FEWEST_CELLS: Final = 64
# Cells that are looked at together, behind the one where a key belongs.
_WINDOW: Final = np.arange(1, 9)
# In use, removed ones included; with more, searches become long. Rebuilt, it is emptier than that, so that keys that
# come and go do not have it rebuilt again and again.
_FULLEST: Final = 0.6
_REBUILT: Final = 0.45


class KeyIndex:
    """A hash table with open addressing (linear probing) whose cells are row numbers; the keys lie with the rows."""

    def __init__(self) -> None:
        # Factors of its own, so that nobody can choose keys that fall into one place.
        self._factors = np.array([secrets.randbits(64) | 1, secrets.randbits(64) | 1], dtype=np.uint64)
        self._reset(_FEWEST_CELLS)

    def find(self, wanted: Keys, keys: Keys) -> npt.NDArray[np.int32]:
        """The row of each key, `ABSENT` where there is none.

        Args:
            keys: Those of all rows, by row.
        """
        cells = self._home(wanted)
        found = self._cells[cells]
        # Most stand where they belong, or are not there.
        looking = np.flatnonzero((found != ABSENT) & ~self._have(found, wanted, keys))
        while len(looking):
            # The others are looked for in several cells at once: a search by single ones is as long as the longest.
            window = (cells[looking, None] + _WINDOW) & self._mask
            rows = self._cells[window]
            hit = self._have(rows, wanted[looking, None], keys)
            place = np.where(hit.any(axis=1), hit.argmax(axis=1), 0)
            is_there = hit[np.arange(len(looking)), place]
            found[looking] = np.where(is_there, rows[np.arange(len(looking)), place], ABSENT)
            looking = looking[~is_there & (rows != ABSENT).all(axis=1)]
            cells[looking] += len(_WINDOW)
        return found

    @staticmethod
    def _have(rows: npt.NDArray[np.int32], wanted: Keys, keys: Keys) -> npt.NDArray[np.bool_]:
        """Whether rows have these keys; what is no row has none."""
        if not len(keys):
            return np.zeros(rows.shape, dtype=np.bool_)
        # A row below 0 counts from the end, and is sorted out. Word by word: numpy is slow over axes of two.
        same = (keys[rows, 0] == wanted[..., 0]) & (keys[rows, 1] == wanted[..., 1]) & (rows >= 0)
        return np.asarray(same, np.bool_)

    def add(self, rows: npt.NDArray[np.int32], keys: Keys) -> None:
        """Adds rows whose keys are not inside and differ.

        Args:
            keys: Those of all rows, by row.
        """
        if self._used + len(rows) > _FULLEST * len(self._cells):
            self._rebuild(len(rows), keys)
        self._used += len(rows)
        self._put(rows, keys)

    def remove(self, rows: npt.NDArray[np.int32], keys: Keys) -> None:
        """Removes rows that are inside."""
        looking = rows
        cells = self._home(keys[rows])
        while len(looking):
            hit = self._cells[cells] == looking
            self._cells[cells[hit]] = _REMOVED
            looking = looking[~hit]
            cells = (cells[~hit] + 1) & self._mask

    def _home(self, keys: Keys) -> npt.NDArray[np.int64]:
        mixed = keys[:, 0] * self._factors[0] + keys[:, 1] * self._factors[1]
        return np.asarray(mixed >> self._shift, np.int64)

    def _put(self, rows: npt.NDArray[np.int32], keys: Keys) -> None:
        cells = self._home(keys[rows])
        while len(rows):
            free = self._cells[cells] < 0
            # Of several rows for one cell the last one stays.
            self._cells[cells[free]] = rows[free]
            left = self._cells[cells] != rows
            rows, cells = rows[left], (cells[left] + 1) & self._mask

    def _rebuild(self, more: int, keys: Keys) -> None:
        rows = self._cells[self._cells >= 0]
        size = _FEWEST_CELLS
        while len(rows) + more > _REBUILT * size:
            size *= 2
        self._reset(size)
        self._used = len(rows)
        self._put(rows, keys)

    def _reset(self, size: int) -> None:
        self._cells = np.full(size, ABSENT, dtype=np.int32)
        self._mask = size - 1
        self._shift = np.uint64(64 - (size.bit_length() - 1))
        self._used = 0
