"""Files of texts with a class."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from conveyor.errors import InvalidArgument
from conveyor.training.examples import LabelledText
from conveyor.training.readers.files import open_text

__all__ = ["read_imdb", "read_labelled_csv", "read_labelled_lines", "read_labelled_tsv", "read_lines"]


def read_labelled_lines(path: Path) -> list[LabelledText]:
    """Reads `label TAB text` lines without a header: the Stanford Sentiment Treebank, Amazon product domains."""
    with open_text(path) as file:
        rows = [line.rstrip("\r\n").split("\t", 1) for line in file if line.strip()]
    wrong = next((number for number, row in enumerate(rows, 1) if len(row) != 2), None)
    if wrong is not None:
        raise InvalidArgument(f"{path}: row {wrong} is not 'label TAB text'")
    return [LabelledText(text, label) for label, text in rows]


def read_lines(path: Path) -> list[LabelledText]:
    """Reads unlabelled texts, one a line; blank lines are left out."""
    with open_text(path) as file:
        return [LabelledText(line.strip(), "") for line in file if line.strip()]


def read_imdb(path: Path) -> list[LabelledText]:
    """Reads a TSV with columns `label`, `source_dir`, `text`; the group is `source_dir`. Quotes are plain letters."""
    return _read_table(path, delimiter="\t", text="text", group="source_dir")


def read_labelled_tsv(path: Path) -> list[LabelledText]:
    """Reads a TSV with columns `label`, `text_a` (ChnSentiCorp). Quotes are plain letters."""
    return _read_table(path, delimiter="\t", text="text_a", group=None)


def read_labelled_csv(path: Path) -> list[LabelledText]:
    """Reads a CSV with columns `label`, `review` and, where there is one, the group `cat`."""
    return _read_table(path, delimiter=",", text="review", group="cat")


def _read_table(path: Path, *, delimiter: str, text: str, group: str | None) -> list[LabelledText]:
    with open_text(path) as file:
        rows = _rows(file, delimiter)
        header = next(rows, [])
        missing = [name for name in ("label", text) if name not in header]
        if missing:
            raise InvalidArgument(f"{path}: the header lacks the columns {missing}")
        label_at, text_at = header.index("label"), header.index(text)
        group_at = header.index(group) if group in header else None
        examples = []
        for number, row in enumerate(rows, 2):
            if len(row) != len(header):
                raise InvalidArgument(f"{path}: row {number} has {len(row)} columns, the header {len(header)}")
            examples.append(LabelledText(row[text_at], row[label_at], "" if group_at is None else row[group_at]))
    return examples


def _rows(file: IO[str], delimiter: str) -> Iterator[list[str]]:
    if delimiter == "\t":
        return csv.reader(file, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    return csv.reader(file, delimiter=delimiter)
