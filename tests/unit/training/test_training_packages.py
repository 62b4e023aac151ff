"""From a recipe to a package, on a few sentences and numbers written here."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from conveyor.domain import Forecast, Sentiment, Series, Tagging
from conveyor.errors import InvalidArgument
from conveyor.nn.models import build
from conveyor.repository.package import read_package
from conveyor.repository.samples import difference
from conveyor.repository.weights import read_tensors
from conveyor.training.evaluate import dev_parts, deviations, evaluate, read_part
from conveyor.training.predictor import Predictor, result_object
from conveyor.training.recipe import load_recipe
from conveyor.training.train import train

COMMON = """
license = "CC0-1.0"
description = "A tiny model for tests."
limits = ["Everything."]
"""

SENTIMENT = """
name = "tiny-sentiment"
task = "sentiment"
labels = ["negative", "positive"]
pooling = "mean"
recurrent = { hidden = 4, bidirectional = true }
text = { tokenizer = "word", columns = [{ kind = "lower", dim = 4 }] }
"""

WORDS = """
name = "tiny-words"
task = "tag"
scheme = "bmes"
learns = "words"
crf = true
recurrent = { hidden = 6, bidirectional = true }
text = { tokenizer = "character", columns = [
  { kind = "token", dim = 4 }, { kind = "bigram", dim = 4 }, { kind = "begins", dim = 2 }, { kind = "ends", dim = 2 },
] }
"""

FORECAST = """
name = "tiny-forecast"
task = "forecast"
horizon = 6
default_horizon = 4
quantiles = [0.1, 0.5, 0.9]
history = 168
recurrent = { hidden = 6 }
series = { features = ["load"], targets = ["load"], frequency = "h", calendar = ["time_of_day"], half_life_steps = 24 }
"""

TEXT_TRAINING = """
[training]
epochs = 3
patience = 3
learning_rate = 0.05
clip_norm = 1.0
averaging = 0.9
dropout = 0.1
stored = "float16"
padded_steps = 64
rows = 4
max_steps = 6
word_dropout = 0.1
"""

FORECAST_TRAINING = """
[training]
epochs = 2
patience = 2
learning_rate = 0.01
clip_norm = 1.0
rows = 3
batches = 3
window_steps = 30
warm_steps = 4
origins = 5
calendar_dropout = 0.5
missing = 0.1
dev_stride = 5
season_steps = 24
"""

REVIEWS = "1\ta good and warm film\n0\ta bad film\n1\tgood\n0\tbad , bad and far too long for what it has to say\n"
PARAGRAPHS = "1/m  我们/r  去/v  公园/n  。/w\n2/m  [北方/ns  大学/n]nt  在/p  北方/ns  ，/w  我们/r  在/p  大学/n\n"


def demand(steps: int) -> str:
    rows = [
        f"2021-03-{1 + h // 24:02}T{h % 24:02}:00:00Z,{50 + 9 * math.sin(h / 24 * 6.283) + h % 5}" for h in range(steps)
    ]
    return "time,Load\n" + "\n".join(rows) + "\n"


def data_table(path: Path, part: str, file_format: str, more: str = "") -> str:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return (
        f'\n[[data]]\nname = "own"\nsource = "us"\nlicense = "CC0-1.0"\nsplit = "{part} part"\npart = "{part}"\n'
        f'file = "{path.name}"\nsha256 = "{digest}"\nformat = "{file_format}"\n{more}'
    )


def make_recipe(folder: Path, task: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if task == "sentiment":
        head, tail, body, file_format = SENTIMENT, TEXT_TRAINING, REVIEWS, "labelled-lines"
        samples: list[dict[str, object]] = [{"input": ""}, {"input": "Good, but <br /> long…"}]
        more = ['labels = { 0 = "negative", 1 = "positive" }\n'] * 2
    elif task == "words":
        head, tail = WORDS, TEXT_TRAINING + "list_dropout = 0.3\n"
        body, file_format = PARAGRAPHS, "peoples-daily"
        samples = [{"input": ""}, {"input": "我们 在北方。"}, {"input": ["我", "们"]}]
        more = ["", ""]
    else:
        head, tail, body, file_format = FORECAST, FORECAST_TRAINING, demand(480), "series-csv"
        samples = [
            {"input": {"values": [1.0, None, 3.0], "start": "2021-01-01T00:00:00Z"}},
            {"input": {"values": [[5.0]]}, "horizon": 6, "quantiles": [0.2]},
        ]
        more = [
            'columns = ["Load"]\nuntil = 2021-03-12T00:00:00Z\n',
            'columns = ["Load"]\nsince = 2021-03-05T00:00:00Z\n',
        ]
    data = folder / "data.txt"
    data.write_text(body, encoding="utf-8")
    tables = [data_table(data, part, file_format, extra) for part, extra in zip(("train", "dev"), more, strict=True)]
    path = folder / f"tiny-{task}.toml"
    path.write_text(head.replace("\n", COMMON, 1) + tail + "".join(tables), encoding="utf-8")
    lines = [json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples]
    path.with_suffix(".samples.jsonl").write_text("".join(lines), encoding="utf-8")
    return path


TEACHING = """
[training.teaching]
teachers = 2
epochs = 1
longest = 8
sentences = 6
leaning = 0.5
"""


def taught(folder: Path) -> Path:
    """The sentiment recipe with teachers, and unlabelled text with sentences for them."""
    path = make_recipe(folder, "sentiment")
    (folder / "text.txt").write_text("a good film . a bad one ! and a warm film .\n", encoding="utf-8")
    text = path.read_text(encoding="utf-8").replace("dim = 4 }", 'dim = 4, vectors = "cooccurrence" }')
    at = text.index("[[data]]")
    text = text[:at] + TEACHING.lstrip() + "\n" + text[at:] + data_table(folder / "text.txt", "text", "lines")
    path.write_text(text, encoding="utf-8")
    return path


def trained(folder: Path, task: str, **options: object) -> Path:
    path = taught(folder) if task == "taught" else make_recipe(folder, task)
    threads = torch.get_num_threads()
    try:
        return train(path, folder, folder / "models", folder / "work", progress=False, **options)  # type: ignore[arg-type]
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=["sentiment", "words", "forecast"])
def package(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package of each task, trained from a tiny recipe."""
    return trained(tmp_path_factory.mktemp(request.param), request.param)


def predictor(directory: Path) -> Predictor:
    found = read_package(directory)
    model = build(found.spec).eval()
    model.load_state_dict({name: torch.from_numpy(array) for name, array in read_tensors(found.weights).items()})
    return Predictor(found.spec, directory, model)


def test_a_package_reproduces_its_samples(package: Path) -> None:
    """The weights as stored give what the samples say, exactly."""
    found = read_package(package)
    answers = predictor(package)
    assert len(found.samples) >= 2
    for sample in found.samples:
        asked = {"input": sample.input, "horizon": sample.horizon, "quantiles": sample.quantiles}
        assert difference(sample.output, result_object(answers.answer(asked)), 1e-9) is None


def test_a_card_names_data_quality_cost_and_limits(package: Path) -> None:
    """What the recipe says and what was measured stands in the card."""
    card = (package / "README.md").read_text(encoding="utf-8")
    for text in (
        "own | us | CC0-1.0 | train: train part",
        "own dev part: ",
        "microseconds a row",
        "- Everything.",
        "forget gate",
    ):
        assert text in card


def test_training_again_writes_the_next_version_with_the_same_bytes(tmp_path: Path) -> None:
    """No version is ever replaced; the finished checkpoint gives the same weights."""
    first = trained(tmp_path, "sentiment")
    second = trained(tmp_path, "sentiment")
    assert ("1", "2") == (first.name, second.name)
    for name in ("weights.safetensors", "vocab.txt", "samples.jsonl", "model.toml"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


@pytest.mark.parametrize("task", ["sentiment", "taught", "words", "forecast"])
def test_training_twice_gives_the_same_weights(tmp_path: Path, task: str) -> None:
    """On one thread, bit for bit, from nothing."""
    one, two = trained(tmp_path / "a", task), trained(tmp_path / "b", task)
    assert (one / "weights.safetensors").read_bytes() == (two / "weights.safetensors").read_bytes()


def test_teachers_learn_first_and_are_not_learned_again(tmp_path: Path) -> None:
    """A checkpoint for each beside the pupil's; a training that goes on gives the same weights."""
    first = trained(tmp_path, "taught")
    stems = sorted(path.stem.split("-", 2)[-1] for path in (tmp_path / "work").rglob("checkpoint-*-teacher-*.pt"))
    assert ["teacher-1", "teacher-2"] == stems
    for path in (tmp_path / "work").rglob("checkpoint-*.pt"):
        if "teacher" not in path.stem:
            path.unlink()
    again = trained(tmp_path, "taught")
    assert (first / "weights.safetensors").read_bytes() == (again / "weights.safetensors").read_bytes()


def test_weights_are_stored_as_the_recipe_says(package: Path) -> None:
    """float16 for the texts, float32 by default."""
    expected = np.float32 if package.parent.name == "tiny-forecast" else np.float16
    assert {np.dtype(expected)} == {tensor.dtype for tensor in load_file(package / "weights.safetensors").values()}


class Direct:
    """Answers from the package itself, as a server would."""

    def __init__(self, directory: Path) -> None:
        self._predictor = predictor(directory)

    def sentiment(self, texts: Sequence[str]) -> list[Sentiment]:
        answers = [self._predictor.answer({"input": text}) for text in texts]
        return [answer for answer in answers if isinstance(answer, Sentiment)]

    def tag(self, items: Sequence[str] | Sequence[Sequence[str]]) -> list[Tagging]:
        answers = [self._predictor.answer({"input": item}) for item in items]
        return [answer for answer in answers if isinstance(answer, Tagging)]

    def forecast(self, series: Sequence[Series]) -> list[Forecast]:
        items = [
            {
                "values": [[None if math.isnan(v) else v for v in row] for row in one.values.tolist()],
                "start": one.start.isoformat() if one.start else None,
            }
            for one in series
        ]
        answers = [self._predictor.answer({"input": item}) for item in items]
        return [answer for answer in answers if isinstance(answer, Forecast)]


def test_evaluation_agrees_with_the_card(package: Path) -> None:
    """Scored through answers, the development part gives the figures of the training, where they mean the same."""
    folder = package.parents[2]
    (parts,) = [dev_parts(load_recipe(path), folder) for path in folder.glob("tiny-*.toml")]
    measures = evaluate(read_package(package).spec, parts["own dev part"], Direct(package))
    card = (package / "README.md").read_text(encoding="utf-8")
    for name in {"accuracy", "macro_f1", "precision", "recall", "f1"} & measures.keys():
        assert f"own dev part: {name} | {measures[name]:.4g} |" in card
    if package.parent.name == "tiny-forecast":
        assert {"mae", "mse", "quantile_loss", "coverage_80", "naive_mae", "mae_ratio"} == set(measures)
        recipe = load_recipe(folder / "tiny-forecast.toml")
        deviation = deviations(recipe, folder)
        assert deviation is not None
        in_units = evaluate(read_package(package).spec, parts["own dev part"], Direct(package), deviation)
        assert measures["mse"] / deviation[0] ** 2 == pytest.approx(in_units["standardised_mse at 4"])


def test_a_data_file_alone_can_be_scored(package: Path) -> None:
    """Its format is recognised, and numbered labels are the package's in their order."""
    spec = read_package(package).spec
    examples = read_part(package.parents[2] / "data.txt", spec.task)
    measures = evaluate(spec, examples, Direct(package))
    assert all(math.isfinite(value) for value in measures.values())
    if spec.task == "sentiment":
        assert measures["accuracy"] in (0.0, 0.25, 0.5, 0.75, 1.0)


def test_examples_of_another_task_are_refused(tmp_path: Path) -> None:
    """Scoring a classifier on words is an error, not a score."""
    directory = trained(tmp_path, "sentiment")
    (tmp_path / "words.txt").write_text(PARAGRAPHS, encoding="utf-8")
    spec = read_package(directory).spec
    words = read_part(tmp_path / "words.txt", "tag")
    with pytest.raises(InvalidArgument, match="no examples of the task"):
        evaluate(spec, words, Direct(directory))


@pytest.mark.parametrize(
    ("lines", "message"),
    [(None, "there must be"), ("", "one sample or more"), ("{", "not JSON"), ('{"output": 1}', "one sample or more")],
)
def test_samples_are_checked_before_training(tmp_path: Path, lines: str | None, message: str) -> None:
    """A recipe without inputs of its own fails at once: nothing was trained."""
    path = make_recipe(tmp_path, "sentiment")
    samples = path.with_suffix(".samples.jsonl")
    samples.unlink() if lines is None else samples.write_text(lines, encoding="utf-8")
    with pytest.raises(InvalidArgument, match=message):
        train(path, tmp_path, tmp_path / "models", tmp_path / "work", progress=False)
    assert not list(tmp_path.rglob("checkpoint*"))


def test_a_sample_that_cannot_be_answered_ends_the_training_before_it_begins(tmp_path: Path) -> None:
    """A horizon beyond the model's is found with the untrained network."""
    path = make_recipe(tmp_path, "forecast")
    path.with_suffix(".samples.jsonl").write_text('{"input": {"values": [1]}, "horizon": 99}', encoding="utf-8")
    with pytest.raises(InvalidArgument, match="horizon"):
        train(path, tmp_path, tmp_path / "models", tmp_path / "work", progress=False)
    assert not list(tmp_path.rglob("checkpoint*"))


def test_changed_data_is_refused(tmp_path: Path) -> None:
    """A recipe trains on the files it names or not at all."""
    path = make_recipe(tmp_path, "sentiment")
    (tmp_path / "data.txt").write_text(REVIEWS + "1\tmore\n", encoding="utf-8")
    with pytest.raises(InvalidArgument, match="is not the file of the recipe"):
        train(path, tmp_path, tmp_path / "models", tmp_path / "work", progress=False)
    assert not (tmp_path / "models").exists()
