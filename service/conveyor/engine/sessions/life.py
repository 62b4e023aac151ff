"""The sessions of one model from their opening to their end, through memory and state directory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from conveyor.engine.executors.port import SessionStates
from conveyor.engine.sessions.index import ABSENT, Keys
from conveyor.engine.sessions.options import SessionOptions
from conveyor.engine.sessions.record import BadRecord, Record, pack_many, unpack
from conveyor.engine.sessions.residence import Residence, StateArray
from conveyor.engine.sessions.store import StoredSessions
from conveyor.engine.sessions.table import Rows, SessionTable, as_keys, key_bytes
from conveyor.errors import QueueFull
from conveyor.features.streams import Scaling
from conveyor.wire.port import SessionCounts
from conveyor.wire.sessions import KEY_BYTES

__all__ = ["SessionLife"]

# Written in one transaction while others wait for the device.
_SAVED_TOGETHER: Final = 128
_EXPIRED_TOGETHER: Final = 256


class SessionLife:
    """Which sessions there are, and where. Same thread as the engine.

    Args:
        stored: The model's part of the state directory, if there is one.
        in_use: The sessions that rows wait for.
        wall: Seconds since 1970, for times of use that outlast this process.
    """

    def __init__(
        self,
        states: SessionStates,
        options: SessionOptions,
        stored: StoredSessions | None,
        in_use: Callable[[], Rows],
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._num_features = len(states.series.features)
        self._width = states.width
        self._options = options
        self._stored = stored
        self._in_use = in_use
        # Those that somebody works with, for which nothing waits any more.
        self._pinned = np.empty(0, dtype=np.int32)
        self._clock = clock
        self._wall = wall
        self.table = SessionTable(self._num_features)
        self.residence = Residence(
            states,
            self.table,
            options.device_bytes,
            options.host_bytes,
            self._write_out if stored is not None else None,
            lambda: np.concatenate([in_use(), self._pinned]),
        )
        # Sessions that are in the state directory and not in the table.
        self._away = stored.count() if stored is not None else 0
        self._evicted: Counter[str] = Counter()
        self._next_sweep_at = clock()
        self._next_save_at = clock() + options.checkpoint_s
        # Rows before it were written by the checkpoint that is under way: those in use all the time change again before
        # it ends, and must not keep it from the others.
        self._save_from = 0

    @property
    def num_live(self) -> int:
        """Sessions there are, wherever they lie."""
        return len(self.table) + self._away

    @property
    def room(self) -> int:
        """Sessions that can be opened now."""
        return max(int(min(self._options.quota - self.num_live, self.residence.most - len(self.table))), 0)

    def find(self, sessions: npt.NDArray[np.uint8]) -> Rows:
        """The rows of sessions, brought in from the state directory if need be; `ABSENT` where there is none.

        Args:
            sessions: uint8 [sessions, 16].
        """
        keys = as_keys(sessions)
        rows = self.table.find(keys)
        known = rows[rows != ABSENT]
        is_idle = self._is_idle(known)
        if is_idle.any():
            idle = np.unique(known[is_idle])
            idle = idle[~np.isin(idle, self._in_use())]
            self.end(idle, "idle")
            rows[np.isin(rows, idle)] = ABSENT
        if self._away and (rows == ABSENT).any():
            self._bring_in(keys[rows == ABSENT])
            rows = self.table.find(keys)
        return rows

    @contextmanager
    def pinned(self, rows: Rows) -> Iterator[None]:
        """Keeps sessions in memory meanwhile, whatever room is needed for others."""
        self._pinned = rows
        try:
            yield
        finally:
            self._pinned = rows[:0]

    def open(self, sessions: npt.NDArray[np.uint8]) -> Rows:
        """Begins sessions without any step, whose keys are not inside.

        Raises:
            QueueFull: There is no room for them, or the quota is used up.
        """
        count = len(sessions)
        if self.num_live + count > self._options.quota:
            raise QueueFull("the quota of live sessions of this model is used up")
        if len(self.table) + count > self.residence.most:
            raise QueueFull("memory for sessions is full, and there is no state directory to move them to")
        return self.table.add(as_keys(sessions), self._clock())

    def end(self, rows: Rows, reason: str | None) -> None:
        """Ends sessions and frees what they had. reason: why the engine did so; None if somebody asked for it."""
        if not len(rows):
            return
        if self._stored is not None:
            saved = rows[self.table.saved[rows]]
            if len(saved):
                self._stored.delete(key_bytes(self.table.keys[saved]))
        if reason is not None:
            self._evicted[reason] += len(rows)
        self._forget(rows)

    def expires_in_s(self, row: int) -> float:
        """Idle seconds until a session ends."""
        return max(float(self.table.used_at[row]) + self._options.idle_s - self._clock(), 0.0)

    def record(self, row: int) -> Record:
        """A session as it is."""
        rows = np.array([row], dtype=np.int32)
        return self._record(row, self.residence.read(rows)[0])

    def put(self, row: int, record: Record) -> None:
        """Makes a session be what a record says."""
        rows = np.array([row], dtype=np.int32)
        self._set(rows, [record])
        self.table.use(rows, self._clock())

    def read_record(self, raw: bytes) -> Record:
        """The record in these bytes.

        Raises:
            BadRecord: They are none of this model.
        """
        return unpack(raw, self._num_features, self._width)

    def sweep(self, now: float) -> None:
        """Ends sessions that were idle for too long, from time to time."""
        if now < self._next_sweep_at:
            return
        self._next_sweep_at = now + max(self._options.idle_s / 64, 0.05)
        table = self.table
        idle = np.flatnonzero(table.live & ~table.running & (table.used_at + self._options.idle_s <= now))
        idle = idle[~np.isin(idle, self._in_use())] if len(idle) else idle
        self.end(idle.astype(np.int32), "idle")
        if self._stored is not None and self._away:
            keys = self._stored.expired(self._wall() - self._options.idle_s, _EXPIRED_TOGETHER)
            if keys:
                rows = table.find(as_keys(np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, KEY_BYTES)))
                away = [key for key, row in zip(keys, rows.tolist(), strict=True) if row == ABSENT]
                self._stored.delete(away)
                self._away -= len(away)
                self._evicted["idle"] += len(away)
                if len(away) == _EXPIRED_TOGETHER:
                    # There may be as many again: they count for the quota so long as they are there.
                    self._next_sweep_at = now

    def save_some(self, now: float) -> bool:
        """Writes some of what changed since the last checkpoint, if it is time for one; returns whether that was the
        last of it."""
        if self._stored is None or not self._options.checkpoint_s or now < self._next_save_at:
            return False
        # Also if it fails: the next attempt is not made before the next checkpoint is due.
        due, self._next_save_at = self._next_save_at, now + self._options.checkpoint_s
        self._save_from = self._save(_SAVED_TOGETHER, self._save_from)
        if self._save_from:
            self._next_save_at = due
        return not self._save_from

    def retire(self, reason: str) -> SessionCounts:
        """Leaves all sessions to the state directory; without one they end for the reason given. Nothing may be under
        way. Returns the last counts."""
        self.save_all()
        rows = np.flatnonzero(self.table.live).astype(np.int32)
        if self._stored is not None:
            self._away += len(rows)
            self._forget(rows)
        else:
            self.end(rows, reason)
        return replace(self.counts(), live=0)

    def count_on(self, counts: SessionCounts | None) -> None:
        """Goes on from what was counted before, if anything was."""
        if counts is not None:
            self._evicted.update(counts.evicted)
            self.residence.moved.update(counts.moved)

    def save_all(self) -> None:
        """Writes everything that changed; nothing may be under way."""
        if self._stored is not None:
            first = self._save(64 * _SAVED_TOGETHER)
            while first:
                first = self._save(64 * _SAVED_TOGETHER, first)

    @property
    def wakes_at(self) -> float:
        """When something is to be done although nobody asks for anything; monotonic seconds."""
        times = [float("inf")]
        if self.num_live:
            times.append(self._next_sweep_at)
            if self._stored is not None and self._options.checkpoint_s and self.table.unsaved.any():
                times.append(self._next_save_at)
        return min(times)

    def counts(self) -> SessionCounts:
        """How many there are, and what became of them."""
        return SessionCounts(
            self.num_live, self.residence.bytes_by_tier(), dict(self._evicted), dict(self.residence.moved)
        )

    def _is_idle(self, rows: Rows) -> npt.NDArray[np.bool_]:
        late = self.table.used_at[rows] + self._options.idle_s <= self._clock()
        return np.asarray(late & ~self.table.running[rows], np.bool_)

    def _bring_in(self, keys: Keys) -> None:
        """Takes sessions, as far as they are there, out of the state directory."""
        assert self._stored is not None
        wall = self._wall()
        good, ended = list[tuple[bytes, float, Record]](), list[bytes]()
        for key, (used, raw) in self._stored.find(list(dict.fromkeys(key_bytes(keys)))).items():
            idle_s = max(wall - used, 0.0)
            try:
                record = self.read_record(raw)
            except BadRecord:
                self._evicted["damaged"] += 1
                ended.append(key)
                continue
            if idle_s >= self._options.idle_s:
                self._evicted["idle"] += 1
                ended.append(key)
            else:
                good.append((key, idle_s, record))
        self._away -= len(good) + len(ended)
        if ended:
            self._stored.delete(ended)
        if good:
            brought = np.frombuffer(b"".join(key for key, _, _ in good), dtype=np.uint8).reshape(-1, KEY_BYTES)
            rows = self.table.add(as_keys(brought), self._clock() - np.array([idle_s for _, idle_s, _ in good]))
            self._set(rows, [record for _, _, record in good])
            self.table.saved[rows], self.table.unsaved[rows] = True, False

    def _save(self, most: int, first: int = 0) -> int:
        """Writes some sessions, from a row on, that changed and are not under way; returns from which row to go on, 0
        if these were the last."""
        table = self.table
        changed = (table.live & table.unsaved & ~table.running)[first:]
        rows = (first + np.flatnonzero(changed)[:most]).astype(np.int32)
        if len(rows):
            self._write(rows, self.residence.read(rows))
        return int(rows[-1]) + 1 if len(rows) == most else 0

    def _write(self, rows: Rows, states: StateArray) -> None:
        assert self._stored is not None
        since = self._wall() - self._clock()
        keys = key_bytes(self.table.keys[rows])
        used = (self.table.used_at[rows] + since).tolist()
        table = self.table
        scaling = np.stack([table.mean[rows], table.variance[rows], table.weight[rows]], axis=1)
        steps, starts_us, offsets_us = table.steps[rows], table.start_us[rows], table.offset_us[rows]
        records = pack_many(steps.tolist(), starts_us.tolist(), offsets_us.tolist(), scaling, states)
        self._stored.save(zip(keys, used, records, strict=True))
        self.table.saved[rows], self.table.unsaved[rows] = True, False

    def _write_out(self, rows: Rows, states: StateArray) -> None:
        """Leaves sessions to the state directory."""
        changed = self.table.unsaved[rows] | ~self.table.saved[rows]
        if changed.any():
            self._write(rows[changed], states[changed])
        self._away += len(rows)
        self._forget(rows)

    def _forget(self, rows: Rows) -> None:
        self.residence.release(rows)
        self.table.remove(rows)

    def _record(self, row: int, state: npt.NDArray[np.float32]) -> Record:
        table = self.table
        scaling = np.stack([table.mean[row], table.variance[row], table.weight[row]])
        return Record(int(table.steps[row]), int(table.start_us[row]), int(table.offset_us[row]), scaling, state)

    def _set(self, rows: Rows, records: Sequence[Record]) -> None:
        table = self.table
        table.steps[rows] = [record.steps for record in records]
        table.start_us[rows] = [record.start_us for record in records]
        table.offset_us[rows] = [record.offset_us for record in records]
        table.set_scaling(rows, Scaling(*np.stack([record.scaling for record in records], axis=1)))
        self.residence.put(rows, np.stack([record.state for record in records]))
