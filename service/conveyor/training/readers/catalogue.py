"""Which reader reads which format, and which format a file seems to have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from conveyor.errors import InvalidArgument
from conveyor.spec import Task
from conveyor.training.examples import Example, ExampleT, LabelledText, TaggedTokens, only
from conveyor.training.readers.files import open_text, verify
from conveyor.training.readers.sentiment import (
    read_imdb,
    read_labelled_csv,
    read_labelled_lines,
    read_labelled_tsv,
    read_lines,
)
from conveyor.training.readers.series import read_bare_series, read_series_csv, read_series_rows, slice_series
from conveyor.training.readers.tagging import (
    read_characters,
    read_cluener,
    read_conllu,
    read_iob2,
    read_peoples_daily,
)
from conveyor.training.recipe import DataFile, Format

__all__ = ["READERS", "detect_format", "read_data_file", "read_parts"]

READERS: Mapping[Format, Callable[[Path], Sequence[Example]]] = {
    "lines": read_lines,
    "labelled-lines": read_labelled_lines,
    "imdb": read_imdb,
    "labelled-csv": read_labelled_csv,
    "labelled-tsv": read_labelled_tsv,
    "conllu": read_conllu,
    "iob2": read_iob2,
    "characters": read_characters,
    "peoples-daily": read_peoples_daily,
    "cluener": read_cluener,
    "series-csv": read_series_csv,
    "series-rows": read_series_rows,
    "series-bare": read_bare_series,
}


def read_data_file(data: DataFile, data_dir: Path) -> Sequence[Example]:
    """Reads one file of a recipe: verified, of the wanted groups, labels renamed, series cut to their part.

    Raises:
        InvalidArgument: The file is missing, is another one than the recipe's, or is not of its format.
    """
    path = data_dir / data.file
    verify(path, data.sha256)
    examples = [
        prepared
        for number, example in enumerate(READERS[data.format](path))
        if _in_fold(number, data) and (prepared := _prepare(example, data)) is not None
    ]
    return examples * data.times


def read_parts(files: Sequence[DataFile], part: str, data_dir: Path, kind: type[ExampleT]) -> dict[str, list[ExampleT]]:
    """The examples of the files of one part, by the name and split of their data set.

    Raises:
        InvalidArgument: As `read_data_file`, or the examples are of another kind.
    """
    parts: dict[str, list[ExampleT]] = {}
    for data in files:
        if data.part == part:
            parts.setdefault(f"{data.name} {data.split}", []).extend(only(read_data_file(data, data_dir), kind))
    return parts


def detect_format(path: Path, task: Task) -> Format:
    """The format a file seems to have, from its name and its first line.

    Raises:
        InvalidArgument: It looks like none that fits the task.
    """
    with open_text(path) as file:
        first = file.readline()
    suffixes = {suffix.lower() for suffix in path.suffixes}
    guesses: dict[Task, list[tuple[bool, Format]]] = {
        "sentiment": [
            (first.startswith("label\tfile_id"), "imdb"),
            (first.startswith("label\t"), "labelled-tsv"),
            (first.startswith(("cat,label,", "label,review")), "labelled-csv"),
            ("\t" in first, "labelled-lines"),
        ],
        "tag": [
            (".conllu" in suffixes or first.count("\t") >= 9, "conllu"),
            (".iob2" in suffixes, "iob2"),
            (first.startswith("{"), "cluener"),
            ("/m " in first, "peoples-daily"),
            (len(first.split()) == 2, "characters"),
        ],
        "forecast": [
            (first.startswith('"V1","V2"'), "series-rows"),
            (any(letter.isalpha() for letter in first), "series-csv"),
            ("," in first, "series-bare"),
        ],
    }
    found = next((name for fits, name in guesses[task] if fits), None)
    if found is None:
        raise InvalidArgument(f"{path.name} looks like no format of the task {task!r}; name one with --format")
    return found


def _in_fold(number: int, data: DataFile) -> bool:
    if data.fold is None:
        return True
    first, every = data.fold
    return (number % every == first) == (data.part == "dev")


def _prepare(example: Example, data: DataFile) -> Example | None:
    if isinstance(example, LabelledText):
        if data.groups and example.group not in data.groups:
            return None
        label = data.labels.get(example.label, example.label)
        return LabelledText(example.text, label, example.group, data.shares.get(example.label))
    if isinstance(example, TaggedTokens):
        return TaggedTokens(example.tokens, tuple(data.labels.get(tag, tag) for tag in example.tags), example.text)
    return slice_series(example, data.columns, data.since, data.until)
