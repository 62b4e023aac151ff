"""From a recipe to a package."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from conveyor.domain import ModelKey
from conveyor.errors import InvalidArgument
from conveyor.nn.models import SequenceClassifier, SequenceTagger, SeriesForecaster, build
from conveyor.repository.layout import scan
from conveyor.repository.writer import write_package
from conveyor.spec import PackageSpec
from conveyor.training.card import Cost, render_card
from conveyor.training.examples import ExampleT, LabelledText, SeriesTable, TaggedTokens
from conveyor.training.loop import Objective, run
from conveyor.training.objectives.forecast import ForecastObjective
from conveyor.training.objectives.sentiment import SentimentObjective
from conveyor.training.objectives.tagging import TaggingObjective
from conveyor.training.predictor import Model, Predictor, result_object
from conveyor.training.readers.catalogue import read_parts
from conveyor.training.recipe import ForecastRecipe, Recipe, SentimentRecipe, TagRecipe, load_recipe
from conveyor.training.specs import build_text, forecast_spec, sentiment_spec, tag_spec

__all__ = ["train"]

_COST_ROWS = 200
"""Rows timed for the card."""


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """A recipe with its data in hand. timed: inputs of the development part, as in `samples.jsonl`."""

    spec: PackageSpec
    model: Model
    objective: Objective[Any, Any]
    timed: Sequence[Mapping[str, object]]


def train(
    recipe_path: Path,
    data_dir: Path,
    models_dir: Path,
    work_dir: Path,
    *,
    resume: bool = True,
    device: str = "cpu",
    threads: int = 1,
    progress: bool = True,
) -> Path:
    """Trains what a recipe describes and writes the package as the next version of its name.

    Beside the recipe lies `<recipe>.samples.jsonl`, inputs of our own writing; the package stores what it answers to
    them. The measures on the card are those of the weights as stored.

    Args:
        data_dir: Where the recipe's files lie.
        models_dir: Gets `<name>/<version>/`; versions that exist are left alone.
        work_dir: Gets `<name>/`, with the vocabulary and the checkpoint an interrupted training goes on from.
        resume: Go on from the checkpoint if it is of this recipe, its words aside.
        device: Where to train, as torch names it. The package is measured and its samples computed on the CPU.
        threads: Of torch on the CPU; the same weights come again only with the same number.

    Returns:
        The package's folder.

    Raises:
        InvalidArgument: The recipe, its samples or the data is wrong.
    """
    torch.set_num_threads(threads)
    recipe = load_recipe(recipe_path)
    samples = _sample_inputs(recipe_path)
    work = work_dir / recipe.name
    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.training.seed)
    plan = _plan(recipe, data_dir, work, torch.device(device))
    # an input that cannot be answered should end the training before it begins, not after
    untrained = Predictor(plan.spec, work, build(plan.spec).eval())
    for sample in samples:
        untrained.answer(sample)
    checkpoint = work / f"checkpoint-{_fingerprint(recipe)}.pt"
    outcome = run(plan.model, plan.objective, recipe.training, checkpoint, resume=resume, progress=progress)

    tensors = _stored(plan.model, recipe.training.stored)
    plan.model.load_state_dict({name: torch.from_numpy(array.astype(np.float32)) for name, array in tensors.items()})
    with torch.no_grad():
        measures = plan.objective.measure(plan.model)
    predictor = Predictor(plan.spec, work, plan.model.to("cpu"))
    answered = [sample | {"output": result_object(predictor.answer(sample))} for sample in samples]
    card = render_card(recipe, plan.spec, outcome, measures, _cost(predictor, plan.timed, plan.model, tensors))
    directory = _next_version(models_dir, recipe.name)
    vocabulary = work / "vocab.txt"
    files = {} if isinstance(recipe, ForecastRecipe) else {vocabulary.name: vocabulary.read_bytes().decode()}
    write_package(directory, plan.spec, tensors, files, card, answered)
    return directory


def _fingerprint(recipe: Recipe) -> str:
    """Names all of a recipe that decides its weights; its words about them may change without training again."""
    deciding = recipe.model_dump_json(exclude={"description", "license", "limits", "tolerance"})
    return hashlib.sha256(deciding.encode()).hexdigest()[:16]


def _plan(recipe: Recipe, data_dir: Path, work: Path, device: torch.device) -> _Plan:
    match recipe:
        case SentimentRecipe():
            return _plan_sentiment(recipe, data_dir, work, device)
        case TagRecipe():
            return _plan_tagging(recipe, data_dir, work, device)
        case ForecastRecipe():
            return _plan_forecast(recipe, data_dir, device)


def _plan_sentiment(recipe: SentimentRecipe, data_dir: Path, work: Path, device: torch.device) -> _Plan:
    train_part = _joined(read_parts(recipe.data, "train", data_dir, LabelledText))
    dev = read_parts(recipe.data, "dev", data_dir, LabelledText)
    text, encoder = build_text(recipe.text, [example.text for example in train_part], work)
    spec = sentiment_spec(recipe, text)
    model = build(spec, dropout=recipe.training.dropout).to(device)
    assert isinstance(model, SequenceClassifier)
    objective = SentimentObjective(spec, encoder, train_part, dev, recipe.training, device)
    return _Plan(spec, model, objective, [{"input": example.text} for example in _joined(dev)])


def _plan_tagging(recipe: TagRecipe, data_dir: Path, work: Path, device: torch.device) -> _Plan:
    train_part = _joined(read_parts(recipe.data, "train", data_dir, TaggedTokens))
    dev = read_parts(recipe.data, "dev", data_dir, TaggedTokens)
    words = recipe.learns == "words"
    text, encoder = build_text(
        recipe.text, [example.raw_text if words else example.tokens for example in train_part], work
    )
    labels = list("BMES") if words else sorted({tag for example in train_part for tag in example.tags})
    spec = tag_spec(recipe, text, labels)
    model = build(spec, dropout=recipe.training.dropout).to(device)
    assert isinstance(model, SequenceTagger)
    objective = TaggingObjective(spec, encoder, recipe.learns, train_part, dev, recipe.training, device)
    inputs = [{"input": example.raw_text if words else list(example.tokens)} for example in _joined(dev)]
    return _Plan(spec, model, objective, inputs)


def _plan_forecast(recipe: ForecastRecipe, data_dir: Path, device: torch.device) -> _Plan:
    train_part = _joined(read_parts(recipe.data, "train", data_dir, SeriesTable))
    dev = read_parts(recipe.data, "dev", data_dir, SeriesTable)
    spec = forecast_spec(recipe)
    model = build(spec, dropout=recipe.training.dropout).to(device)
    assert isinstance(model, SeriesForecaster)
    objective = ForecastObjective(spec, train_part, dev, recipe.training, device)
    inputs = [{"input": {"values": _with_nulls(table.values[: spec.history])}} for table in _joined(dev)]
    return _Plan(spec, model, objective, inputs)


def _joined(parts: Mapping[str, Sequence[ExampleT]]) -> list[ExampleT]:
    return [example for part in parts.values() for example in part]


def _with_nulls(values: npt.NDArray[np.float64]) -> list[list[float | None]]:
    """A missing value is null in a sample, as in JSON."""
    return [[None if np.isnan(value) else value for value in row] for row in values.tolist()]


def _stored(model: Model, dtype: str) -> dict[str, npt.NDArray[np.generic]]:
    return {name: tensor.detach().cpu().numpy().astype(np.dtype(dtype)) for name, tensor in model.state_dict().items()}


def _sample_inputs(recipe_path: Path) -> list[dict[str, object]]:
    path = recipe_path.with_suffix(".samples.jsonl")
    try:
        samples = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    except FileNotFoundError as error:
        raise InvalidArgument(f"beside the recipe there must be {path.name}, inputs to answer") from error
    except ValueError as error:
        raise InvalidArgument(f"{path.name} holds a line that is not JSON: {error}") from error
    if not samples or not all(isinstance(sample, dict) and "input" in sample for sample in samples):
        raise InvalidArgument(f"{path.name} must hold one sample or more, each an object with 'input'")
    return samples


def _cost(
    predictor: Predictor,
    timed: Sequence[Mapping[str, object]],
    model: Model,
    tensors: Mapping[str, npt.NDArray[np.generic]],
) -> Cost:
    rows = [timed[index] for index in np.linspace(0, len(timed) - 1, min(_COST_ROWS, len(timed))).astype(int)]
    predictor.answer(rows[0])
    began = time.perf_counter()
    for row in rows:
        predictor.answer(row)
    seconds = time.perf_counter() - began
    return Cost(
        row_us=seconds / len(rows) * 1e6,
        mean_steps=float(np.mean([predictor.num_steps(row) for row in rows])),
        weights_bytes=sum(tensor.nbytes for tensor in tensors.values()),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
    )


def _next_version(models_dir: Path, name: str) -> Path:
    found: Mapping[ModelKey, Path] = scan(models_dir).versions.get(name, {}) if models_dir.is_dir() else {}
    highest = max((int(key.version) for key in found), default=0)
    return models_dir / name / str(highest + 1)
