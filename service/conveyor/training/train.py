"""From a recipe to a package."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from conveyor.domain import ModelKey, Sentiment
from conveyor.errors import InvalidArgument
from conveyor.nn.models import build
from conveyor.repository.layout import scan
from conveyor.repository.writer import write_package
from conveyor.training.behaviour import judge, read_cases
from conveyor.training.card import Cost, render_card
from conveyor.training.loop import run
from conveyor.training.plans import make_plan
from conveyor.training.predictor import Model, Predictor, result_object
from conveyor.training.recipe import ForecastRecipe, Recipe, load_recipe

__all__ = ["train"]

_COST_ROWS = 200
"""Rows timed for the card."""


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
    them. There may be a `<recipe>.behaviour.jsonl` too (see `behaviour.py`); its outcome goes on the card. The measures
    there are those of the weights as stored.

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
    cases = read_cases(recipe_path.with_suffix(".behaviour.jsonl"))
    work = work_dir / recipe.name
    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.training.seed)
    plan = make_plan(recipe, data_dir, models_dir, work, torch.device(device))
    # an input that cannot be answered should end the training before it begins, not after
    untrained = Predictor(plan.spec, work, build(plan.spec).eval())
    for sample in samples:
        untrained.answer(sample)
    checkpoint = work / f"checkpoint-{_fingerprint(recipe)}.pt"
    taught = 0.0
    if plan.teachers is not None:
        taught = plan.teachers.teach(
            lambda number: checkpoint.with_stem(f"{checkpoint.stem}-teacher-{number}"),
            resume=resume,
            progress=progress,
        )
    outcome = run(plan.learner, plan.objective, recipe.training, checkpoint, resume=resume, progress=progress)
    outcome.seconds += taught
    if recipe.training.calibrate:
        plan.objective.calibrate(plan.learner)
    stored = _stored(plan.learner, recipe.training.stored)
    plan.learner.load_state_dict({name: torch.from_numpy(array.astype(np.float32)) for name, array in stored.items()})
    with torch.no_grad():
        measures = plan.objective.measure(plan.learner)
    model = plan.shipped(plan.learner.to("cpu"))
    tensors = _stored(model, recipe.training.stored)
    predictor = Predictor(plan.spec, work, model)
    answered = [sample | {"output": result_object(predictor.answer(sample))} for sample in samples]
    verdicts = judge(cases, lambda text: _label(predictor, text))
    card = render_card(recipe, plan.spec, outcome, measures, _cost(predictor, plan.timed, model, tensors), verdicts)
    directory = _next_version(models_dir, recipe.name)
    vocabulary = work / "vocab.txt"
    files = {} if isinstance(recipe, ForecastRecipe) else {vocabulary.name: vocabulary.read_bytes().decode()}
    write_package(directory, plan.spec, tensors, files, card, answered)
    return directory


def _fingerprint(recipe: Recipe) -> str:
    """Names all of a recipe that decides its weights; its words about them may change without training again."""
    deciding = recipe.model_dump_json(exclude={"description", "license", "limits", "tolerance"})
    return hashlib.sha256(deciding.encode()).hexdigest()[:16]


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


def _label(predictor: Predictor, text: str) -> str:
    answer = predictor.answer({"input": text})
    if not isinstance(answer, Sentiment):
        raise InvalidArgument("behaviour cases are for sentiment")
    return answer.label


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
