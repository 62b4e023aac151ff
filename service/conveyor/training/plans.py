"""A recipe with its data in hand: what is trained, on what, and what of it is shipped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from conveyor.features.text import TextEncoder
from conveyor.features.vocabulary import Vocabulary
from conveyor.nn.models import SequenceClassifier, SequenceTagger, SeriesForecaster
from conveyor.spec import WORD_KINDS, PackageSpec, TextSpec
from conveyor.training.auxiliary import AuxiliaryTagger, plain_tagger
from conveyor.training.channels import Channels, one_channel, shared_spec, side_by_side
from conveyor.training.examples import ExampleT, LabelledText, SeriesTable, TaggedTokens
from conveyor.training.lexicon import TaughtWords, num_classes, teach_words
from conveyor.training.loop import Objective
from conveyor.training.objectives.forecast import ForecastObjective
from conveyor.training.objectives.sentiment import SentimentObjective
from conveyor.training.objectives.tagging import DrawEncoders, TaggingObjective, auxiliary_tags
from conveyor.training.predictor import Model
from conveyor.training.readers.catalogue import read_parts
from conveyor.training.recipe import ForecastRecipe, Recipe, SentimentRecipe, TagRecipe
from conveyor.training.repeats import without_repeats
from conveyor.training.specs import build_text, forecast_spec, sentiment_spec, tag_spec
from conveyor.training.start import Start
from conveyor.training.teaching import Teachers
from conveyor.training.vectors import cooccurrence_vectors

__all__ = ["Plan", "make_plan"]


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A recipe with its data in hand.

    spec: of the package.
    learner: what is trained; `shipped` makes of it, on the CPU, the network of the package.
    timed: inputs of the development part, as in `samples.jsonl`.
    teachers: what learns before, if the recipe asks for it, for the objective to learn from.
    """

    spec: PackageSpec
    learner: Model
    objective: Objective[Any, Any]
    timed: Sequence[Mapping[str, object]]
    shipped: Callable[[Any], Model] = lambda learner: learner
    teachers: Teachers | None = None


def make_plan(recipe: Recipe, data_dir: Path, models_dir: Path, work: Path, device: torch.device) -> Plan:
    """Reads a recipe's data and builds what it trains.

    Args:
        data_dir: Where the recipe's files lie.
        models_dir: Where a package lies that training begins from.
        work: Gets the vocabulary.
        device: Of the network and its batches.

    Raises:
        InvalidArgument: The data is missing, another than the recipe's, or not for the task.
    """
    match recipe:
        case SentimentRecipe():
            return _plan_sentiment(recipe, data_dir, work, device)
        case TagRecipe():
            return _plan_tagging(recipe, data_dir, models_dir, work, device)
        case ForecastRecipe():
            return _plan_forecast(recipe, data_dir, device)


def _plan_sentiment(recipe: SentimentRecipe, data_dir: Path, work: Path, device: torch.device) -> Plan:
    dev = read_parts(recipe.data, "dev", data_dir, LabelledText)
    labelled = _joined(read_parts(recipe.data, "train", data_dir, LabelledText))
    train_part = without_repeats(labelled, _joined(dev), short=not recipe.training.short_repeats)
    unlabelled = _joined(read_parts(recipe.data, "text", data_dir, LabelledText))
    texts = [example.text for example in [*train_part, *unlabelled]]
    text, encoder = build_text(recipe.text, texts, work)
    spec = sentiment_spec(recipe, text)
    model = SequenceClassifier(spec, recipe.training.dropout)
    _begin_at_vectors(model, recipe, encoder, texts)
    model.to(device)
    objective = SentimentObjective(spec, encoder, train_part, dev, recipe.training, device)
    inputs = [{"input": example.text} for example in _joined(dev)]
    teaching = recipe.training.teaching
    if teaching is None:
        return Plan(spec, model, objective, inputs)
    begun = {name: tensor.clone() for name, tensor in model.embeddings.state_dict().items()}

    def make(seed: int) -> SequenceClassifier:
        torch.manual_seed(seed)
        teacher = SequenceClassifier(spec, recipe.training.dropout)
        teacher.embeddings.load_state_dict(begun)
        return teacher.to(device)

    def is_short(example: LabelledText) -> bool:
        return len(encoder.encode_ids(example.text)) <= teaching.longest

    # a part is for sentences or for whole texts; teachers are judged by the first kind only
    short_dev = {name: part for name, part in dev.items() if 2 * sum(map(is_short, part)) > len(part)}
    short = SentimentObjective(spec, encoder, list(filter(is_short, train_part)), short_dev, recipe.training, device)
    leaning = {recipe.labels[0]: -1, recipe.labels[-1]: 1}
    asked = [
        (encoder.encode_ids(example.text), leaning.get(example.label, 0) if example.share is None else 0)
        for example in [*train_part, *unlabelled]
    ]
    teachers = Teachers(make, short, objective, encoder, asked, recipe.training, teaching)
    return Plan(spec, model, objective, inputs, teachers=teachers)


def _begin_at_vectors(
    model: SequenceClassifier, recipe: SentimentRecipe, encoder: TextEncoder, texts: Sequence[str]
) -> None:
    """Replaces the random embeddings of the columns that ask for it; the new ones are as large on average."""
    for index, (column, table) in enumerate(zip(recipe.text.columns, model.embeddings.values(), strict=True)):
        if column.vectors == "cooccurrence":
            assert isinstance(table, nn.Embedding)
            rows = (encoder.encode_ids(text)[:, index] for text in texts)
            vectors = cooccurrence_vectors(rows, table.num_embeddings, column.dim, recipe.training.seed)
            with torch.no_grad():
                table.weight.copy_(torch.from_numpy(vectors) * table.weight.std())


def _plan_tagging(recipe: TagRecipe, data_dir: Path, models_dir: Path, work: Path, device: torch.device) -> Plan:
    dev = read_parts(recipe.data, "dev", data_dir, TaggedTokens)
    sources = [
        without_repeats(part, _joined(dev))
        for part in read_parts(recipe.data, "train", data_dir, TaggedTokens).values()
    ]
    train_part = list(chain.from_iterable(sources))
    words = recipe.learns == "words"
    start = None if recipe.start is None else Start(models_dir / recipe.start)
    items = [example.raw_text if words else example.tokens for example in train_part]
    encoders = None
    if words and any(column.kind in WORD_KINDS for column in recipe.text.columns):
        taught = teach_words(sources)
        text, encoder = build_text(recipe.text, items, work, start, taught.words, num_classes(len(sources)))
        encoders = _held_out_encoders(text, Vocabulary.load(work, text.columns), taught, recipe.training.list_dropout)
    else:
        text, encoder = build_text(recipe.text, items, work, start)
    labels = list("BMES") if words else sorted({tag for example in train_part for tag in example.tags})
    spec = tag_spec(recipe, text, labels)
    dropout = recipe.training.dropout
    learner = (
        AuxiliaryTagger(spec, len(auxiliary_tags(train_part)), dropout)
        if recipe.training.auxiliary
        else SequenceTagger(spec, dropout)
    )
    if start is not None:
        start.apply(learner, Vocabulary.load(work, spec.text.columns))
    objective = TaggingObjective(spec, encoder, recipe.learns, train_part, dev, recipe.training, device, encoders)
    inputs = [{"input": example.raw_text if words else list(example.tokens)} for example in _joined(dev)]
    return Plan(spec, learner.to(device), objective, inputs, plain_tagger)


def _held_out_encoders(text: TextSpec, vocabulary: Vocabulary, taught: TaughtWords, dropout: float) -> DrawEncoders:
    """Draws an encoder for each training example; those of one part share theirs."""

    def draw(rng: np.random.Generator) -> list[TextEncoder]:
        encoders = [TextEncoder(text, vocabulary, words) for words in taught.thinned(dropout, rng)]
        return [encoders[part] for part in taught.part_of]

    return draw


def _plan_forecast(recipe: ForecastRecipe, data_dir: Path, device: torch.device) -> Plan:
    train_part = _joined(read_parts(recipe.data, "train", data_dir, SeriesTable))
    dev = read_parts(recipe.data, "dev", data_dir, SeriesTable)
    spec = forecast_spec(recipe)
    inputs = [{"input": {"values": _with_nulls(table.values[: spec.history])}} for table in _joined(dev)]
    if recipe.training.channels == "shared":
        learned = one_channel(spec)
        learner = SeriesForecaster(learned, recipe.training.dropout).to(device)
        # the first file is the one that is scored; those after it only add series to learn from
        scored = Channels.of(train_part[0])
        apart = {name: [one for table in tables for one in scored.apart(table)] for name, tables in dev.items()}
        pieces = [one for table in train_part for one in Channels.of(table).apart(table)]
        objective = ForecastObjective(learned, pieces, apart, recipe.training, device)
        return Plan(shared_spec(spec), learner, objective, inputs, lambda model: side_by_side(model, spec))
    learner = SeriesForecaster(spec, recipe.training.dropout).to(device)
    objective = ForecastObjective(spec, train_part, dev, recipe.training, device)
    return Plan(spec, learner, objective, inputs)


def _joined(parts: Mapping[str, Sequence[ExampleT]]) -> list[ExampleT]:
    return [example for part in parts.values() for example in part]


def _with_nulls(values: npt.NDArray[np.float64]) -> list[list[float | None]]:
    """A missing value is null in a sample, as in JSON."""
    return [[None if np.isnan(value) else value for value in row] for row in values.tolist()]
