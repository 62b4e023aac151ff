"""What the readers give: examples of the three tasks, free of any file format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from conveyor.errors import InvalidArgument
from conveyor.features.time import parse_frequency

__all__ = ["Example", "ExampleT", "LabelledText", "SeriesTable", "TaggedTokens", "only"]


@dataclass(frozen=True, slots=True)
class LabelledText:
    """A text and its class.

    group: the part of its file it belongs to (a split, a category), "" if none.
    share: where the label stands for a degree, the probability of the package's last label.
    """

    text: str
    label: str
    group: str = ""
    share: float | None = None


@dataclass(frozen=True, slots=True)
class TaggedTokens:
    """Tokens and a tag for each; `text` is the text they came from, where the file holds it."""

    tokens: tuple[str, ...]
    tags: tuple[str, ...]
    text: str | None = None

    def word_spans(self) -> list[tuple[int, int]]:
        """Where each token stands in `raw_text`, in code points, half open.

        Raises:
            ValueError: A token does not occur in the text where it should.
        """
        spans, cursor, text = [], 0, self.raw_text
        for token in self.tokens:
            start = text.index(token, cursor)
            cursor = start + len(token)
            spans.append((start, cursor))
        return spans

    @property
    def raw_text(self) -> str:
        """The text, or the tokens without anything between them, as Chinese is written."""
        return "".join(self.tokens) if self.text is None else self.text


@dataclass(frozen=True, slots=True, eq=False)
class SeriesTable:
    """A series with named columns.

    values: float64 [steps, columns], NaN where an observation is missing.
    start: time of the first step, with an offset, or None if the file has no times.
    frequency: pandas offset alias of one step, or None likewise.
    """

    columns: tuple[str, ...]
    values: npt.NDArray[np.float64]
    start: datetime | None = None
    frequency: str | None = None

    def time_of(self, step: int) -> datetime | None:
        """The time of a step, or None if the series has no times."""
        if self.start is None or self.frequency is None:
            return None
        # adding no offset at all would still move a time that lies between two of them
        moved = pd.Timestamp(self.start) + step * parse_frequency(self.frequency) if step else pd.Timestamp(self.start)
        when: datetime = moved.to_pydatetime()
        return when


Example = LabelledText | TaggedTokens | SeriesTable

ExampleT = TypeVar("ExampleT", LabelledText, TaggedTokens, SeriesTable)


def only(examples: Sequence[Example], kind: type[ExampleT]) -> list[ExampleT]:
    """The examples, all of one kind.

    Raises:
        InvalidArgument: One is of another kind, or there is none.
    """
    fitting = [example for example in examples if isinstance(example, kind)]
    if len(fitting) != len(examples) or not fitting:
        raise InvalidArgument(f"the data holds no examples of the task (needed: {kind.__name__})")
    return fitting
