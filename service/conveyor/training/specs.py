"""From a recipe and what its data holds to the package's description."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from conveyor.errors import InvalidArgument
from conveyor.features.text import TextEncoder, count_entries
from conveyor.features.vocabulary import Vocabulary
from conveyor.spec import (
    FORMAT_VERSION,
    WORD_KINDS,
    ColumnSpec,
    ForecastSpec,
    Provenance,
    SentimentSpec,
    SeriesSpec,
    TagSpec,
    TextSpec,
)
from conveyor.training.recipe import ColumnRecipe, ForecastRecipe, Recipe, SentimentRecipe, TagRecipe, TextRecipe
from conveyor.training.start import Start

__all__ = ["build_text", "forecast_spec", "sentiment_spec", "tag_spec"]


def build_text(
    recipe: TextRecipe,
    items: Sequence[str | Sequence[str]],
    directory: Path,
    start: Start | None = None,
    words: Mapping[str, int] | None = None,
    classes: int | None = None,
) -> tuple[TextSpec, TextEncoder]:
    """Counts the entries of the training texts, writes `vocab.txt` and gives the encoder that reads it.

    Args:
        items: Texts, or lists of tokens.
        directory: Where `vocab.txt` goes.
        start: Package whose entries are known already, and are kept however rare they are here.
        words: What `begins` and `ends` columns look up: the class of each word, of so many `classes`.
    """
    widest = _text_spec(recipe, [column.max_size for column in recipe.columns], classes)
    counts = count_entries(widest, items)
    least = {spec.name: column.min_count for spec, column in zip(widest.columns, recipe.columns, strict=True)}
    if start is not None:
        for name, entries in counts.items():
            entries.update(dict.fromkeys(start.entries(name), least[name]))
    vocabulary = Vocabulary.build(counts, widest.columns, least, words)
    vocabulary.save(directory)
    spec = _text_spec(recipe, [vocabulary.size(column.name) for column in widest.columns], classes)
    return spec, TextEncoder.load(spec, directory)


def sentiment_spec(recipe: SentimentRecipe, text: TextSpec) -> SentimentSpec:
    """The description of a classifier."""
    return SentimentSpec(**_common(recipe), task="sentiment", text=text, pooling=recipe.pooling, labels=recipe.labels)


def tag_spec(recipe: TagRecipe, text: TextSpec, labels: Sequence[str]) -> TagSpec:
    """The description of a tagger."""
    return TagSpec(**_common(recipe), task="tag", text=text, scheme=recipe.scheme, crf=recipe.crf, labels=tuple(labels))


def forecast_spec(recipe: ForecastRecipe) -> ForecastSpec:
    """The description of a forecaster."""
    return ForecastSpec(
        **_common(recipe),
        task="forecast",
        series=SeriesSpec(**recipe.series.model_dump()),
        horizon=recipe.horizon,
        default_horizon=recipe.default_horizon,
        quantiles=recipe.quantiles,
        history=recipe.history,
    )


def _common(recipe: Recipe) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "name": recipe.name,
        "description": recipe.description,
        "license": recipe.license,
        "data": tuple(
            Provenance(name=data.name, source=data.source, license=data.license, split=f"{data.part}: {data.split}")
            for data in recipe.data
        ),
        "tolerance": recipe.tolerance,
        "recurrent": recipe.recurrent,
    }


def _text_spec(recipe: TextRecipe, sizes: Sequence[int], classes: int | None) -> TextSpec:
    columns = [_column(column, size, classes) for column, size in zip(recipe.columns, sizes, strict=True)]
    return TextSpec(tokenizer=recipe.tokenizer, columns=tuple(columns))


def _column(column: ColumnRecipe, size: int, classes: int | None) -> ColumnSpec:
    if column.kind not in WORD_KINDS:
        return ColumnSpec(kind=column.kind, length=column.length, size=size, dim=column.dim)
    if classes is None:
        raise InvalidArgument(f'a column of kind {column.kind!r} needs words to learn: learns = "words"')
    return ColumnSpec(kind=column.kind, classes=classes, size=ColumnSpec.size_for(classes), dim=column.dim)
