"""The entries of each id column, and `vocab.txt`, the file that holds them.

`vocab.txt` is UTF-8 with `column<TAB>entry<TAB>entry…` in each line, one entry or more, ended by a line feed. The
entries of a column stand in the order of their ids, which begin at 2: 0 is padding and 1 is whatever is unknown.

The words that `begins` and `ends` columns know stand there too, as entries of `class1`, `class2`, …
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

_CLASS: Final = "class"
_MAX_WORDS: Final = 2_000_000
_ENTRIES_OF_A_LINE: Final = 100  # names of columns would be a third of a file with one a line
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

    def words(self, num_classes: int) -> dict[str, int]:
        """The words that `begins` and `ends` columns know, and the class of each, from 1 to `num_classes`."""
        return {word: number for number in range(1, num_classes + 1) for word in self.ids(f"{_CLASS}{number}")}

    def size(self, column: str) -> int:
        """Number of ids of a column, padding and unknown among them: the least `size` its `ColumnSpec` can have."""
        return FIRST_ENTRY + len(self.ids(column))

    @classmethod
    def build(
        cls,
        counts: Mapping[str, Mapping[str, int]],
        columns: Sequence[ColumnSpec],
        min_count: int | Mapping[str, int] = 1,
        words: Mapping[str, int] | None = None,
    ) -> Self:
        """Keeps the most frequent entries of each column, as many as its size has room for.

        Equal counts are ordered by the entry itself, so that the same counts always give the same ids.

        Args:
            counts: Column name → entry → how often it occurred.
            min_count: Entries rarer than this are left out; one number, or one for each column name (1 if missing).
            words: The class of each word, for `begins` and `ends` columns.
        """
        kept: dict[str, list[str]] = {}
        for word, number in sorted((words or {}).items()):
            kept.setdefault(f"{_CLASS}{number}", []).append(word)
        for column in columns:
            if column.classes is not None:
                continue
            least = min_count if isinstance(min_count, int) else min_count.get(column.name, 1)
            frequent = [(-n, entry) for entry, n in counts.get(column.name, {}).items() if n >= least and entry]
            kept[column.name] = [entry for _, entry in sorted(frequent)[: column.size - FIRST_ENTRY]]
        return cls(kept)

    @classmethod
    def load(cls, directory: Path, columns: Sequence[ColumnSpec]) -> Self:
        """Reads `vocab.txt` in a package's directory.

        Raises:
            PackageError: The file cannot be read or is not UTF-8, a line has no entry or an empty one, names a column
                that is not in `columns`, repeats an entry, puts a word into two classes, or holds one entry more than
                the column's size has room for.
        """
        try:
            text = (directory / VOCABULARY_FILE).read_bytes().decode("utf-8")
        except OSError as error:
            raise PackageError([Problem(VOCABULARY_FILE, "", f"cannot be read: {error.strerror}")]) from error
        except UnicodeDecodeError as error:
            line_feeds = error.object.count(b"\n", 0, error.start)
            problem = Problem(VOCABULARY_FILE, f"line {line_feeds + 1}", "must be UTF-8")
            raise PackageError([problem]) from error
        room = {column.name: column.size - FIRST_ENTRY for column in columns if column.classes is None}
        num_classes = max((column.classes or 0 for column in columns), default=0)
        classes = [f"{_CLASS}{number}" for number in range(1, num_classes + 1)]
        entries: dict[str, dict[str, None]] = {name: {} for name in [*room, *classes]}
        room |= dict.fromkeys(classes, _MAX_WORDS)
        problems: list[Problem] = []
        lines = text.split("\n")
        if lines[-1] == "":
            lines.pop()
        for number, line in enumerate(lines, 1):
            name, *of_line = line.split("\t")
            message = ""
            if not of_line or "" in of_line:
                message = "must be a column's name and one entry or more, each behind a tab"
            elif name not in entries:
                message = f"column {name!r} is not in model.toml; its columns are {list(entries)}"
            elif len(entries[name]) + len(of_line) > room[name]:
                message = f"column {name!r} has room for {room[name]} entries; give it a larger size in model.toml"
            elif len(set(of_line)) < len(of_line) or any(entry in entries[name] for entry in of_line):
                message = f"repeats an entry of column {name!r}"
            elif name in classes and any(entry in entries[other] for other in classes for entry in of_line):
                message = "puts a word of another class into a second one"
            if message:
                problems.append(Problem(VOCABULARY_FILE, f"line {number}", message))
                if len(problems) == _MAX_PROBLEMS:
                    break
            else:
                entries[name].update(dict.fromkeys(of_line))
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
            entries = list(ids)
            for entry in entries:
                if not entry or "\t" in entry or "\n" in entry:
                    raise ValueError(f"entry {entry!r} of column {name!r} cannot be written")
            lines += [
                "\t".join([name, *entries[first : first + _ENTRIES_OF_A_LINE]]) + "\n"
                for first in range(0, len(entries), _ENTRIES_OF_A_LINE)
            ]
        (directory / VOCABULARY_FILE).write_bytes("".join(lines).encode("utf-8"))
