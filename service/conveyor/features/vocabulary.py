"""The entries of each id column, and `vocab.txt`, the file that holds them.

`vocab.txt` is UTF-8 with one `column<TAB>entry` a line, ended by a line feed. The entries of a column stand in the
order of their ids, which begin at 2: 0 is padding and 1 is whatever is unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from conveyor.errors import PackageError, Problem
from conveyor.spec import ColumnSpec

__all__ = ["FIRST_ENTRY", "PADDING", "UNKNOWN", "VOCABULARY_FILE", "Vocabulary"]

PADDING: Final = 0
UNKNOWN: Final = 1
FIRST_ENTRY: Final = 2
VOCABULARY_FILE: Final = "vocab.txt"

_MAX_PROBLEMS: Final = 20  # a file of the wrong kind would be wrong on every line


class Vocabulary:
    """Ids of the entries of named columns. Immutable once made.

    Args:
        columns: For each column its distinct entries in the order of their ids.
    """

    def __init__(self, columns: Mapping[str, Iterable[str]]) -> None:
        self._ids: dict[str, dict[str, int]] = {
            name: {entry: index for index, entry in enumerate(entries, FIRST_ENTRY)}
            for name, entries in columns.items()
        }

    def ids(self, column: str) -> Mapping[str, int]:
        """Entry → id for one column; empty if the column has no entries."""
        return self._ids.get(column, {})

    def size(self, column: str) -> int:
        """Number of ids of a column, padding and unknown among them: the least `size` its `ColumnSpec` can have."""
        return FIRST_ENTRY + len(self.ids(column))

    @classmethod
    def build(
        cls,
        counts: Mapping[str, Mapping[str, int]],
        columns: Sequence[ColumnSpec],
        min_count: int | Mapping[str, int] = 1,
    ) -> Self:
        """Keeps the most frequent entries of each column, as many as its size has room for.

        Equal counts are ordered by the entry itself, so that the same counts always give the same ids.

        Args:
            counts: Column name → entry → how often it occurred.
            min_count: Entries rarer than this are left out; one number, or one for each column name (1 if missing).
        """
        kept: dict[str, list[str]] = {}
        for column in columns:
            least = min_count if isinstance(min_count, int) else min_count.get(column.name, 1)
            frequent = [(-n, entry) for entry, n in counts.get(column.name, {}).items() if n >= least and entry]
            kept[column.name] = [entry for _, entry in sorted(frequent)[: column.size - FIRST_ENTRY]]
        return cls(kept)

    @classmethod
    def load(cls, directory: Path, columns: Sequence[ColumnSpec]) -> Self:
        """Reads `vocab.txt` in a package's directory.

        Raises:
            PackageError: The file cannot be read or is not UTF-8, a line has no tab or an empty entry, names a column
                that is not in `columns`, repeats an entry, or holds one entry more than the column's size has room for.
        """
        try:
            text = (directory / VOCABULARY_FILE).read_bytes().decode("utf-8")
        except OSError as error:
            raise PackageError([Problem(VOCABULARY_FILE, "", f"cannot be read: {error.strerror}")]) from error
        except UnicodeDecodeError as error:
            line_feeds = error.object.count(b"\n", 0, error.start)
            problem = Problem(VOCABULARY_FILE, f"line {line_feeds + 1}", "must be UTF-8")
            raise PackageError([problem]) from error
        entries: dict[str, dict[str, None]] = {column.name: {} for column in columns}
        room = {column.name: column.size - FIRST_ENTRY for column in columns}
        problems: list[Problem] = []
        lines = text.split("\n")
        if lines[-1] == "":
            lines.pop()
        for number, line in enumerate(lines, 1):
            name, tab, entry = line.partition("\t")
            if not tab or not entry or "\t" in entry:
                message = "must be a column's name, one tab and an entry"
            elif name not in entries:
                message = f"column {name!r} is not in model.toml; its columns are {list(entries)}"
            elif entry in entries[name]:
                message = f"repeats an entry of column {name!r}"
            elif len(entries[name]) == room[name]:
                message = f"column {name!r} has room for {room[name]} entries; give it a larger size in model.toml"
            else:
                entries[name][entry] = None
                continue
            problems.append(Problem(VOCABULARY_FILE, f"line {number}", message))
            if len(problems) == _MAX_PROBLEMS:
                break
        if problems:
            raise PackageError(problems)
        return cls(entries)

    def save(self, directory: Path) -> None:
        """Writes `vocab.txt`; the same vocabulary always gives the same bytes.

        Raises:
            ValueError: An entry is empty or holds a tab or a line feed, which the file has no way to write.
        """
        lines: list[str] = []
        for name, ids in self._ids.items():
            for entry in ids:
                if not entry or "\t" in entry or "\n" in entry:
                    raise ValueError(f"entry {entry!r} of column {name!r} cannot be written")
                lines.append(f"{name}\t{entry}\n")
        (directory / VOCABULARY_FILE).write_bytes("".join(lines).encode("utf-8"))
