"""The state directory: sessions that are not in memory, and what is left of the others if this process dies."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import structlog

from conveyor.domain import ModelKey
from conveyor.errors import Unavailable
from conveyor.wire.sessions import NUM_PARTS

__all__ = ["StateDirectory", "StoredSessions"]

_log = structlog.get_logger(__name__)

_FILE = "sessions.sqlite"
# Written and not yet in place; beyond it, whoever writes moves them, and waits for the disk.
_MOST_PAGES: Final = 32_768
# Several engines write in turn.
_BUSY_S = 30.0
_AGAIN_AFTER_S: Final = 0.01
# Of one statement.
_MOST_KEYS: Final = 500

_SCHEMA = """
CREATE TABLE IF NOT EXISTS models (
    number INTEGER PRIMARY KEY, name TEXT NOT NULL, version TEXT NOT NULL, package BLOB NOT NULL, UNIQUE (name, version)
);
CREATE TABLE IF NOT EXISTS sessions (
    model INTEGER NOT NULL, key BLOB NOT NULL, part INTEGER NOT NULL, used REAL NOT NULL, record BLOB NOT NULL,
    PRIMARY KEY (model, key)
);
CREATE INDEX IF NOT EXISTS sessions_by_use ON sessions (model, part, used);
"""


class StateDirectory:
    """A database that all engines of a server share, each with the sessions of its own parts. One thread.

    What was written stays whole if a process is killed in the middle of writing.

    Args:
        path: Made if there is none, for this user alone.
        engine, num_engines: Which parts are this engine's.

    Raises:
        OSError: It can't be written to.
    """

    def __init__(self, path: Path, engine: int, num_engines: int) -> None:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = file = path / _FILE
        file.touch(mode=0o600)
        self._tidying: threading.Thread | None = None
        self._parts = [part for part in range(NUM_PARTS) if part % num_engines == engine]
        try:
            self._database = sqlite3.connect(file, timeout=_BUSY_S, isolation_level=None)
            # A transaction survives the process; the last ones need not survive the machine.
            _write_ahead(self._database)
            self._database.execute("PRAGMA synchronous = NORMAL")
            self._database.execute(f"PRAGMA wal_autocheckpoint = {_MOST_PAGES}")
            self._database.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise OSError(f"the state directory {path} can't be used: {error}") from error

    def sessions(self, model: ModelKey, package: bytes) -> StoredSessions:
        """The sessions of a model; those of another package of that name and version are dropped."""
        with _transaction(self._database) as database:
            row = database.execute(
                "SELECT number, package FROM models WHERE name = ? AND version = ?", (model.name, model.version)
            ).fetchone()
            if row is not None and row[1] != package:
                dropped = database.execute("DELETE FROM sessions WHERE model = ?", row[:1]).rowcount
                _log.warning("sessions of another package were dropped", model=model.name, sessions=dropped)
                database.execute("UPDATE models SET package = ? WHERE number = ?", (package, row[0]))
            if row is None:
                row = database.execute(
                    "INSERT INTO models (name, version, package) VALUES (?, ?, ?) RETURNING number",
                    (model.name, model.version, package),
                ).fetchone()
        return StoredSessions(self._database, row[0], self._parts)

    def tidy(self) -> None:
        """Has what was written moved to its place in the file, by a thread: it waits for the disk, tens of
        milliseconds, and an engine must not."""
        if self._tidying is None or not self._tidying.is_alive():
            self._tidying = threading.Thread(target=_tidy, args=(self._file,), name="conveyor-sessions", daemon=True)
            self._tidying.start()

    def close(self) -> None:
        """Ends the connection."""
        if self._tidying is not None:
            self._tidying.join()
        self._database.close()


class StoredSessions:
    """The sessions of one model in the state directory. Times of use are seconds since 1970. Every call raises
    `Unavailable` where the directory fails."""

    def __init__(self, database: sqlite3.Connection, model: int, parts: Sequence[int]) -> None:
        self._database = database
        self._model = model
        self._parts = ",".join(map(str, parts))

    def count(self) -> int:
        """How many there are of this engine's parts."""
        query = f"SELECT COUNT(*) FROM sessions WHERE model = ? AND part IN ({self._parts})"
        with _using(self._database) as database:
            found: int = database.execute(query, (self._model,)).fetchone()[0]
        return found

    def find(self, keys: Sequence[bytes]) -> dict[bytes, tuple[float, bytes]]:
        """Last use and record of the sessions that are there."""
        found: dict[bytes, tuple[float, bytes]] = {}
        for first in range(0, len(keys), _MOST_KEYS):
            some = keys[first : first + _MOST_KEYS]
            places = ",".join("?" * len(some))
            query = f"SELECT key, used, record FROM sessions WHERE model = ? AND key IN ({places})"
            with _using(self._database) as database:
                rows = database.execute(query, (self._model, *some)).fetchall()
            found.update((key, (used, record)) for key, used, record in rows)
        return found

    def save(self, sessions: Iterable[tuple[bytes, float, bytes]]) -> None:
        """Writes (key, last use, record) of sessions, in place of what was there of them; all or nothing."""
        rows = [(self._model, key, key[0] % NUM_PARTS, used, record) for key, used, record in sessions]
        with _transaction(self._database) as database:
            database.executemany("INSERT OR REPLACE INTO sessions VALUES (?, ?, ?, ?, ?)", rows)

    def delete(self, keys: Iterable[bytes]) -> None:
        """Forgets sessions."""
        with _transaction(self._database) as database:
            database.executemany(
                "DELETE FROM sessions WHERE model = ? AND key = ?", [(self._model, key) for key in keys]
            )

    def expired(self, before: float, most: int) -> list[bytes]:
        """Some sessions of this engine's parts that were last used before a time."""
        query = f"SELECT key FROM sessions WHERE model = ? AND part IN ({self._parts}) AND used < ? LIMIT ?"
        with _using(self._database) as database:
            return [key for (key,) in database.execute(query, (self._model, before, most))]


def _write_ahead(database: sqlite3.Connection) -> None:
    """Has changes written beside the file first, once for all of its users.

    Where several begin with a new file together, all but one are told that it is busy, at once: SQLite does not wait
    here as it does elsewhere.
    """
    give_up_at = time.monotonic() + _BUSY_S
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > give_up_at:
                raise
            time.sleep(_AGAIN_AFTER_S)
        else:
            return


def _tidy(file: Path) -> None:
    try:
        with closing(sqlite3.connect(file, timeout=_BUSY_S)) as database:
            # Stands in nobody's way.
            database.execute("PRAGMA wal_checkpoint(PASSIVE)")
    except sqlite3.Error as error:
        _log.warning("the state directory could not be tidied", reason=str(error))


@contextmanager
def _using(database: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Says in our words that the database fails."""
    try:
        yield database
    except sqlite3.Error as error:
        raise Unavailable(f"the state directory can't be used now: {error}") from error


@contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All of the statements inside or none."""
    with _using(database):
        database.execute("BEGIN IMMEDIATE")
        try:
            yield database
        except BaseException:
            database.execute("ROLLBACK")
            raise
        database.execute("COMMIT")
