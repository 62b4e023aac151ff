"""The schema of `model.toml`: what a package holds, as typed, validated, immutable values.

A package is described completely by its `PackageSpec`: how text or numbers become arrays (`text`, `series`),
which recurrent network runs over them (`recurrent`), and what its outputs mean (`labels`, `horizon`, …).
Unknown keys are refused.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

__all__ = [
    "FORMAT_VERSION",
    "NAME_PATTERN",
    "WORD_KINDS",
    "WORD_LENGTHS",
    "Calendar",
    "ColumnSpec",
    "ForecastSpec",
    "PackageSpec",
    "Provenance",
    "RecurrentSpec",
    "SentimentSpec",
    "SeriesSpec",
    "TagSpec",
    "Task",
    "TextSpec",
    "package_spec_adapter",
]

FORMAT_VERSION = 1
NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")

# Columns that look up words of a list instead of entries of their own, and how many characters such a word has.
WORD_KINDS = ("begins", "ends")
WORD_LENGTHS = range(2, 6)

Task = Literal["sentiment", "tag", "forecast"]
Calendar = Literal["time_of_day", "day_of_week", "day_of_year"]


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class RecurrentSpec(_Spec):
    """A stack of recurrent layers."""

    cell: Literal["rnn", "gru", "lstm"] = "lstm"
    hidden: int = Field(ge=1, le=8192, description="units of each direction of each layer")
    layers: int = Field(default=1, ge=1, le=16)
    bidirectional: bool = False


class ColumnSpec(_Spec):
    """One id per token, looked up in a vocabulary of its own and embedded; a token's columns are concatenated.

    `token` is the normalised token, `lower` its lower case, `prefix` and `suffix` its first or last `length` code
    points, `shape` its letter and digit pattern, `bigram` and `trigram` the token joined to the next one or two,
    `subword` the id that `tokenizer.json` gives. `begins` and `ends` have no entries but a list of words, each of a
    class: their ids tell of what class the strings of two to five characters are that begin or end at the token.
    """

    kind: Literal["token", "lower", "prefix", "suffix", "shape", "bigram", "trigram", "begins", "ends", "subword"]
    length: int | None = Field(default=None, ge=1, le=16, description="code points, for prefix and suffix only")
    classes: int | None = Field(default=None, ge=1, le=36, description="classes of words, for begins and ends only")
    size: int = Field(ge=2, le=2_000_000, description="ids, with 0 for padding and 1 for what is unknown")
    dim: int = Field(ge=1, le=4096, description="width of the embedding")

    @model_validator(mode="after")
    def _length_belongs_to_affixes(self) -> ColumnSpec:
        if (self.kind in ("prefix", "suffix")) != (self.length is not None):
            raise ValueError("'length' is required for kinds 'prefix' and 'suffix' and accepted for no other")
        return self

    @model_validator(mode="after")
    def _classes_belong_to_words(self) -> ColumnSpec:
        if (self.kind in WORD_KINDS) != (self.classes is not None):
            raise ValueError("'classes' is required for kinds 'begins' and 'ends' and accepted for no other")
        if self.classes is not None and self.size != self.size_for(self.classes):
            raise ValueError(f"'size' must be {self.size_for(self.classes)} for {self.classes} classes of words")
        return self

    @staticmethod
    def size_for(classes: int) -> int:
        """Ids of a `begins` or `ends` column: for each length of a string its class or none, and the two reserved."""
        return int((classes + 1) ** len(WORD_LENGTHS)) + 2

    @property
    def name(self) -> str:
        """The column's name in `vocab.txt`: `token`, `suffix3`, …"""
        return self.kind if self.length is None else f"{self.kind}{self.length}"


class TextSpec(_Spec):
    """How a text becomes ids. Tokens keep their offsets into the original text."""

    tokenizer: Literal["word", "character", "subword"]
    columns: tuple[ColumnSpec, ...] = Field(min_length=1, max_length=16)

    @model_validator(mode="after")
    def _columns_fit_the_tokenizer(self) -> TextSpec:
        names = [column.name for column in self.columns]
        if len(set(names)) != len(names):
            raise ValueError(f"columns must differ, got {names}")
        if self.tokenizer == "subword" and names != ["subword"]:
            raise ValueError("the subword tokenizer takes exactly one column, of kind 'subword'")
        if self.tokenizer != "subword" and "subword" in names:
            raise ValueError("a column of kind 'subword' needs tokenizer = 'subword'")
        if self.tokenizer != "character" and set(WORD_KINDS) & set(names):
            raise ValueError("columns of kind 'begins' and 'ends' need tokenizer = 'character'")
        if len({column.classes for column in self.columns} - {None}) > 1:
            raise ValueError("columns of kind 'begins' and 'ends' share their words, so 'classes' must be the same")
        return self

    @property
    def word_classes(self) -> int:
        """Classes of the words that `begins` and `ends` columns know; 0 without such a column."""
        return max((column.classes or 0 for column in self.columns), default=0)


class SeriesSpec(_Spec):
    """How a series becomes numbers: scaled by a running mean and deviation that forget with `half_life_steps`."""

    features: tuple[str, ...] = Field(min_length=1, max_length=1024)
    targets: tuple[str, ...] = Field(min_length=1, description="which of the features are forecast")
    frequency: str = Field(description="pandas offset alias of one step")
    calendar: tuple[Calendar, ...] = ()
    half_life_steps: float = Field(gt=0, le=1e6)

    @model_validator(mode="after")
    def _targets_are_features(self) -> SeriesSpec:
        if len(set(self.features)) != len(self.features) or len(set(self.targets)) != len(self.targets):
            raise ValueError("features and targets must not repeat a name")
        missing = [name for name in self.targets if name not in self.features]
        if missing:
            raise ValueError(f"targets {missing} are not among the features {list(self.features)}")
        return self

    @property
    def width(self) -> int:
        """Numbers per step: value and presence of each feature, sine and cosine of each calendar item, one flag
        that says whether the calendar is known."""
        return 2 * len(self.features) + (2 * len(self.calendar) + 1 if self.calendar else 0)


class Provenance(_Spec):
    """One data set a package learned from."""

    name: str
    source: str
    license: str
    split: str = ""


class _Package(_Spec):
    format_version: Literal[1]
    name: str = Field(pattern=f"^{NAME_PATTERN.pattern}$")
    description: str = Field(min_length=1)
    license: str = Field(min_length=1, description="licence of the weights")
    data: tuple[Provenance, ...] = ()
    tolerance: float = Field(
        default=1e-4, gt=0, le=0.1, description="largest difference accepted when the samples are replayed"
    )
    recurrent: RecurrentSpec


class SentimentSpec(_Package):
    """sequence → class."""

    task: Literal["sentiment"]
    text: TextSpec
    pooling: Literal["last", "mean", "max"]
    labels: tuple[str, ...] = Field(min_length=2, max_length=1024)

    @model_validator(mode="after")
    def _labels_differ(self) -> SentimentSpec:
        _require_distinct(self.labels)
        return self


class TagSpec(_Package):
    """sequence → tag per token."""

    task: Literal["tag"]
    text: TextSpec
    scheme: Literal["plain", "bio", "bmes"] = Field(description="how tags form spans; 'plain' tags form none")
    crf: bool = False
    labels: tuple[str, ...] = Field(min_length=2, max_length=1024, description="the tags, in the order of the ids")

    @model_validator(mode="after")
    def _labels_fit_the_scheme(self) -> TagSpec:
        _require_distinct(self.labels)
        pattern = {"plain": r"\S.*", "bio": r"O|[BI]-.+", "bmes": r"O|[BMES](-.+)?"}[self.scheme]
        wrong = [label for label in self.labels if not re.fullmatch(pattern, label)]
        if wrong:
            raise ValueError(f"labels {wrong} are not tags of the scheme {self.scheme!r}")
        return self


class ForecastSpec(_Package):
    """series → forecast: every horizon at once, a mean and quantiles for each target."""

    task: Literal["forecast"]
    series: SeriesSpec
    horizon: int = Field(ge=1, le=10_000, description="largest horizon, in steps")
    default_horizon: int = Field(ge=1)
    quantiles: tuple[float, ...] = Field(min_length=1, description="trained levels, ascending")
    history: int = Field(ge=1, le=2**31 - 1, description="steps of history from which the stated quality was measured")
    streamable: bool = Field(
        default=True,
        description="whether a series may be sent bit by bit to a session; its scaling always allows it",
    )

    @model_validator(mode="after")
    def _horizon_and_quantiles_make_sense(self) -> ForecastSpec:
        if self.default_horizon > self.horizon:
            raise ValueError(f"default_horizon must be at most horizon ({self.horizon})")
        ascending = all(a < b for a, b in zip(self.quantiles, self.quantiles[1:], strict=False))
        if not ascending or not all(0 < level < 1 for level in self.quantiles):
            raise ValueError("quantiles must ascend strictly between 0 and 1")
        if self.recurrent.bidirectional:
            raise ValueError("a forecaster reads forward only: recurrent.bidirectional must be false")
        return self


PackageSpec = SentimentSpec | TagSpec | ForecastSpec

package_spec_adapter: TypeAdapter[PackageSpec] = TypeAdapter(Annotated[PackageSpec, Field(discriminator="task")])


def _require_distinct(labels: tuple[str, ...]) -> None:
    if len(set(labels)) != len(labels):
        raise ValueError("labels must not repeat")
