"""Objectives: what is learned from an example, and the losses by hand."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from torch import Tensor

from conveyor.errors import InvalidArgument
from conveyor.features.text import EncodedText, TextEncoder
from conveyor.features.vocabulary import Vocabulary
from conveyor.nn.models import SequenceClassifier, SequenceTagger, SeriesForecaster
from conveyor.spec import (
    Calendar,
    ColumnSpec,
    ForecastSpec,
    RecurrentSpec,
    SentimentSpec,
    SeriesSpec,
    TagSpec,
    TextSpec,
)
from conveyor.training.auxiliary import AuxiliaryTagger, plain_tagger
from conveyor.training.examples import LabelledText, SeriesTable, TaggedTokens
from conveyor.training.linear import LinearForecaster
from conveyor.training.objectives.forecast import ForecastBatch, ForecastObjective, origins
from conveyor.training.objectives.sentiment import SentimentObjective
from conveyor.training.objectives.tagging import TagBatch, TaggingObjective, auxiliary_tags, word_tags
from conveyor.training.recipe import ForecastTraining, SentimentTraining, TagTraining

CPU = torch.device("cpu")
COMMON = {"epochs": 1, "patience": 1, "learning_rate": 0.1, "clip_norm": 1.0}
TEXT = COMMON | {"padded_steps": 100, "rows": 4, "max_steps": 4}


def text_spec(tokenizer: str) -> TextSpec:
    return TextSpec(tokenizer=tokenizer, columns=(ColumnSpec(kind="token", size=30, dim=3),))  # type: ignore[arg-type]


def encoder(tokenizer: str, entries: str) -> TextEncoder:
    spec = text_spec(tokenizer)
    return TextEncoder(spec, Vocabulary.build({"token": Counter(entries.split())}, spec.columns))


def package(text: TextSpec) -> dict[str, object]:
    return {
        "format_version": 1,
        "name": "tiny",
        "description": "A tiny model.",
        "license": "CC0-1.0",
        "recurrent": RecurrentSpec(hidden=2),
        "text": text,
    }


def test_long_texts_keep_beginning_and_end() -> None:
    """A text of six words is learned as its first two and last two, and scored whole."""
    spec = SentimentSpec(**package(text_spec("word")), task="sentiment", pooling="mean", labels=("n", "p"))  # type: ignore[arg-type]
    words = encoder("word", "a b c d e f")
    examples = [LabelledText("a b c d e f", "p")]
    training = SentimentTraining.model_validate(TEXT)
    objective = SentimentObjective(spec, words, examples, {"dev": examples}, training, CPU)
    (batch,) = objective.epoch(np.random.default_rng(0))
    assert words.encode("a b e f").ids.tolist() == batch.ids[0].tolist()
    assert ([4], [1]) == (batch.lengths.tolist(), batch.targets[:, 1].tolist())


def test_an_unknown_label_is_refused() -> None:
    """The error names it."""
    spec = SentimentSpec(**package(text_spec("word")), task="sentiment", pooling="mean", labels=("n", "p"))  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="'meh'"):
        SentimentObjective(
            spec, encoder("word", "a"), [LabelledText("a", "meh")], {}, SentimentTraining.model_validate(TEXT), CPU
        )


def test_words_become_bmes_tags_of_the_encoders_tokens() -> None:
    """Code points of the raw text are matched to tokens; white space belongs to none."""
    encoded = encoder("character", "我").encode("我 在图书馆")
    assert ["S", "S", "B", "M", "E"] == word_tags(encoded, [(0, 1), (2, 3), (3, 6)])


def test_a_word_that_cuts_a_token_is_refused() -> None:
    """Boundaries inside a token cannot be written as tags."""
    encoded = EncodedText(np.zeros((1, 1), np.int32), np.array([0], np.int32), np.array([3], np.int32))
    with pytest.raises(ValueError, match="inside a token"):
        word_tags(encoded, [(0, 2)])


def tagging(learns: str, crf: bool = False) -> tuple[TaggingObjective, TagSpec]:
    spec = TagSpec(**package(text_spec("character")), task="tag", scheme="bmes", crf=crf, labels=tuple("BMES"))  # type: ignore[arg-type]
    examples = [TaggedTokens(("我们", "在", "图书馆"), ("r", "p", "n"))]
    chars = encoder("character", "我 们 在 图 书 馆")
    return TaggingObjective(spec, chars, learns, examples, {}, TagTraining.model_validate(TEXT), CPU), spec


def test_long_texts_are_cut_into_pieces_for_training() -> None:
    """Six characters are learned as four and two."""
    objective, spec = tagging("words")
    (batch,) = objective.epoch(np.random.default_rng(0))
    rows = {tuple(spec.labels[i] for i in row[:n]) for row, n in zip(batch.tags, batch.lengths, strict=True)}
    assert {("B", "E", "S", "B"), ("M", "E")} == rows


def test_words_are_replaced_by_others_of_their_tag() -> None:
    """Each epoch anew, with the boundaries of the new words; words tagged O stay, and so do the data themselves."""
    spec = TagSpec(**package(text_spec("character")), task="tag", scheme="bmes", labels=tuple("BMES"))  # type: ignore[arg-type]
    examples = [
        TaggedTokens(("去", "图书馆", "吧"), ("v", "n", "O")),
        TaggedTokens(("看", "书", "了"), ("v", "n", "O")),
    ]
    chars = encoder("character", "去 图 书 馆 吧 看 了")
    training = TagTraining.model_validate(TEXT | {"max_steps": 9, "substitution": 0.9})
    objective = TaggingObjective(spec, chars, "words", examples, {}, training, CPU)
    known = {
        id_: char for char, id_ in zip("去图书馆吧看了", chars.encode("去图书馆吧看了").ids[:, 0].tolist(), strict=True)
    }

    def texts(seed: int) -> list[tuple[str, str]]:
        return [
            ("".join(known[int(i)] for i in row[:n, 0]), "".join(spec.labels[tag] for tag in tags[:n]))
            for batch in objective.epoch(np.random.default_rng(seed))
            for row, tags, n in zip(batch.ids, batch.tags, batch.lengths, strict=True)
        ]

    possible = {
        (verb + noun + last, "S" + tags + "S")
        for verb in "去看"
        for noun, tags in (("图书馆", "BME"), ("书", "S"))
        for last in "吧了"
    }
    drawn = [text for seed in range(20) for text in texts(seed)]
    assert possible == set(drawn)
    assert texts(3) == texts(3)


def test_encoders_can_be_drawn_for_each_epoch() -> None:
    """One for each training example; the development part is read by the usual one."""
    spec = TagSpec(**package(text_spec("character")), task="tag", scheme="bmes", labels=tuple("BMES"))  # type: ignore[arg-type]
    examples = [TaggedTokens(("去",), ("v",)), TaggedTokens(("看",), ("v",))]
    usual, other = encoder("character", "去 看"), encoder("character", "看 看 去")
    training = TagTraining.model_validate(TEXT)
    objective = TaggingObjective(
        spec, usual, "words", examples, {}, training, CPU, lambda rng: [(usual, other)[int(rng.integers(2))], other]
    )
    ids = [
        tuple(sorted(tuple(row[:, 0].tolist()) for row in batch.ids))
        for seed in range(20)
        for batch in objective.epoch(np.random.default_rng(seed))
    ]
    assert {((2,), (2,)), ((2,), (3,))} == set(ids)


def test_tags_that_are_no_labels_are_refused() -> None:
    """Learning the tags of the data needs them among the labels."""
    with pytest.raises(InvalidArgument, match=r"\['n', 'p', 'r'\]"):
        tagging("tags")


@pytest.mark.parametrize("crf", [False, True])
def test_the_loss_of_tags_ignores_padding(crf: bool) -> None:
    """The mean over a row's own steps: ids past its length change nothing."""
    objective, spec = tagging("words", crf)
    torch.manual_seed(0)
    model = SequenceTagger(spec).eval()
    lengths, tags = torch.tensor([3, 2]), torch.tensor([[0, 1, 2], [0, 2, 3]])
    ids = torch.tensor([[[2], [3], [4]], [[5], [6], [7]]], dtype=torch.int32)
    changed = ids.clone()
    changed[1, 2] = 2
    losses = [objective.loss(model, TagBatch(some, tags, tags, lengths)) for some in (ids, changed)]
    assert torch.equal(losses[0], losses[1])
    alone = objective.loss(model, TagBatch(ids[1:, :2], tags[1:, :2], tags[1:, :2], lengths[1:]))
    first = objective.loss(model, TagBatch(ids[:1], tags[:1], tags[:1], lengths[:1]))
    torch.testing.assert_close((2 * alone + 3 * first) / 5, losses[0])


class Constant(SeriesForecaster):
    """Forecasts fixed numbers: mean, then quantiles."""

    def __init__(self, spec: ForecastSpec, numbers: list[float]) -> None:
        super().__init__(spec)
        self._numbers = torch.tensor(numbers)

    def forward_steps(self, x: Tensor, lengths: Tensor, steps: Tensor) -> Tensor:
        return self._numbers.expand(len(lengths), len(steps), self.spec.horizon, 1, len(self._numbers))


def forecasting(
    table: SeriesTable | None = None, calendar: tuple[Calendar, ...] = (), **changes: object
) -> tuple[ForecastObjective, ForecastSpec]:
    base = {name: value for name, value in package(text_spec("word")).items() if name != "text"}
    series = SeriesSpec(features=("a", "b"), targets=("b",), frequency="h", half_life_steps=5, calendar=calendar)
    spec = ForecastSpec(
        **base, task="forecast", series=series, horizon=2, default_horizon=2, quantiles=(0.1, 0.9), history=4
    )  # type: ignore[arg-type]
    settings: dict[str, object] = COMMON | {
        "rows": 2,
        "batches": 3,
        "window_steps": 6,
        "warm_steps": 2,
        "origins": 3,
        "dev_stride": 1,
        "season_steps": 2,
    }
    table = table or SeriesTable(("a", "b"), np.stack([np.zeros(20), np.arange(20.0)], axis=1))
    training = ForecastTraining.model_validate(settings | changes)
    return ForecastObjective(spec, [table], {"dev": [table]}, training, CPU), spec


def one_step(targets: Tensor) -> ForecastBatch:
    """A window of a step, with what came after it."""
    first = torch.tensor([0])
    return ForecastBatch(torch.zeros(1, 1, 4), first + 1, first, targets, torch.ones(1, 1, 1, 1), torch.empty(0))


def test_the_loss_of_a_forecast_by_hand() -> None:
    """Smooth L1 with beta 0.2 for the mean, the mean pinball loss for the quantiles, nothing for what is missing."""
    objective, spec = forecasting()
    batch = one_step(torch.tensor([[[[1.0], [float("nan")]]]]))
    loss = objective.loss(Constant(spec, [0.5, 0.0, 1.5]), batch)
    mean, pinball = 0.5 - 0.1, (0.1 * 1.0 + 0.1 * 0.5) / 2
    assert mean + pinball == pytest.approx(loss.item())


def test_the_mean_is_quadratic_near_the_truth() -> None:
    """An error of half of beta costs a quarter of beta's half."""
    objective, spec = forecasting()
    batch = one_step(torch.zeros(1, 1, 2, 1))
    assert 0.5 * 0.1**2 / 0.2 == pytest.approx(objective.loss(Constant(spec, [0.1, 0.0, 0.0]), batch).item())


def test_windows_hold_what_came_after_their_origins() -> None:
    """The target is standardised by what was known at the origin: a ramp's next value lies above its mean."""
    objective, spec = forecasting(missing=0.0)
    batches = list(objective.epoch(np.random.default_rng(0)))
    assert 3 == len(batches)
    for batch in batches:
        assert (2, 6, spec.series.width) == tuple(batch.inputs.shape)
        assert (2, 3, 2, 1) == tuple(batch.targets.shape)
        assert set(batch.steps.tolist()) <= {2, 3, 4, 5}
        assert bool((batch.targets[:, :, 1] > batch.targets[:, :, 0]).all())
        # the input at an origin is the value one step before the first target, on the same scale
        now = batch.inputs[:, batch.steps, 1]
        step = batch.targets[:, :, 1, 0] - batch.targets[:, :, 0, 0]
        torch.testing.assert_close(now + step, batch.targets[:, :, 0, 0])


@pytest.mark.parametrize(("share", "known"), [(0.0, 1.0), (1.0, 0.0)])
def test_the_calendar_is_hidden_in_a_share_of_windows(share: float, known: float) -> None:
    """A hidden calendar is flagged as unknown."""
    table = SeriesTable(("a", "b"), np.ones((8, 2)), datetime(2020, 1, 1, tzinfo=UTC), "h")
    objective, _ = forecasting(table=table, calendar=("time_of_day", "day_of_year"), calendar_dropout=share)
    for batch in objective.epoch(np.random.default_rng(0)):
        assert {known} == set(batch.inputs[..., -1].flatten().tolist())


def test_a_series_shorter_than_a_window_is_refused() -> None:
    """The error says how many steps are needed."""
    with pytest.raises(InvalidArgument, match="32 steps"):
        forecasting(window_steps=30)


def test_origins_leave_room_before_and_after() -> None:
    """From the end of the first history to a whole horizon before the end."""
    assert [4, 7] == list(origins(steps=10, history=4, horizon=2, stride=3))
    assert [] == list(origins(steps=5, history=4, horizon=2, stride=1))


def test_an_objective_scores_relative_to_the_naive_forecast() -> None:
    """The score is one minus the ratio of the errors; a network that says the running mean loses on a ramp."""
    objective, spec = forecasting()
    torch.manual_seed(0)
    model = SeriesForecaster(spec).eval()
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.zero_()
        measures = objective.measure(model)
    assert 2.0 == pytest.approx(measures["dev: naive_mae"])
    assert 1 - measures["dev: mae_ratio"] == pytest.approx(measures["score"])
    assert measures["dev: mae"] > 2.0


def test_errors_can_count_in_the_deviation_of_the_series() -> None:
    """A window that is calmer than the series counts less."""
    objective, _ = forecasting(weighting="series", missing=0.0)
    for batch in objective.epoch(np.random.default_rng(0)):
        assert bool((batch.weights > 0).all())
        assert bool((batch.weights < 1).all())


def test_windows_are_mixed_in_season() -> None:
    """Of a series that only repeats itself, any sum in season is the same curve, larger, smaller or upside down."""
    table = SeriesTable(("a", "b"), np.tile([[1.0, 5.0], [2.0, 9.0], [4.0, 6.0]], (12, 1)))
    plain, _ = forecasting(table=table, season_steps=3)
    mixed, _ = forecasting(table=table, season_steps=3, mixing=1.0)
    curves = {
        tuple(np.round(np.abs(row[:, 0]), 3))
        for seed in range(20)
        for batch in plain.epoch(np.random.default_rng(seed))
        for row in batch.inputs.numpy()
    }
    batches = [batch for seed in range(20) for batch in mixed.epoch(np.random.default_rng(seed))]
    assert all(tuple(np.round(np.abs(row[:, 0]), 3)) in curves for batch in batches for row in batch.inputs.numpy())


def test_intervals_are_fitted_to_the_development_part() -> None:
    """Afterwards what came lies between the levels as often as they say; the mean is what it was."""
    values = np.cumsum(np.random.default_rng(0).standard_normal((400, 2)), axis=0)
    objective, spec = forecasting(table=SeriesTable(("a", "b"), values))
    torch.manual_seed(0)
    model = SeriesForecaster(spec).eval()
    with torch.no_grad():
        model.head.weight.mul_(0.1)
        model.head.bias.copy_(torch.tensor([0.0, -0.2, 0.2]).repeat(2))
        before = objective.measure(model)
        objective.calibrate(model)
        after = objective.measure(model)
    assert abs(before["dev: coverage_80"] - 0.8) > 0.05
    assert 0.8 == pytest.approx(after["dev: coverage_80"], abs=0.01)
    assert before["dev: mae"] == after["dev: mae"]


class Certain(SequenceClassifier):
    """Says `n` of the first word and `p` of the second, far too surely."""

    def __init__(self, spec: SentimentSpec) -> None:
        super().__init__(spec)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[9.0, -9.0], [-9.0, 9.0]]))
            self.head.bias.zero_()

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.nn.functional.one_hot(ids[:, 0, 0].long() - 2, 2).float())
        return logits


def test_probabilities_are_fitted_to_the_development_part() -> None:
    """A classifier that is too sure becomes as sure as it is right; what it answers stays."""
    spec = SentimentSpec(**package(text_spec("word")), task="sentiment", pooling="mean", labels=("n", "p"))  # type: ignore[arg-type]
    words = encoder("word", "a b")
    examples = [LabelledText("a", label) for label in "nnnp"] + [LabelledText("b", label) for label in "pppn"]
    objective = SentimentObjective(
        spec, words, examples, {"dev": examples}, SentimentTraining.model_validate(TEXT), CPU
    )
    model = Certain(spec).eval()
    with torch.no_grad():
        before = objective.measure(model)
        objective.calibrate(model)
        after = objective.measure(model)
    assert before["dev: accuracy"] == after["dev: accuracy"]
    assert after["dev: calibration_error"] < before["dev: calibration_error"]


def test_the_temperature_is_that_of_the_worst_part() -> None:
    """A part is right in nine of ten answers, one a twentieth as long in six: stating 3 / 4 misses both by the same,
    and anything else misses one of them by more."""
    spec = SentimentSpec(**package(text_spec("word")), task="sentiment", pooling="mean", labels=("n", "p"))  # type: ignore[arg-type]
    easy = [LabelledText("a", label) for label in "nnnnnnnnnp" * 20]
    hard = [LabelledText("b", label) for label in "ppppppnnnn"]
    objective = SentimentObjective(
        spec, encoder("word", "a b"), [], {"easy": easy, "hard": hard}, SentimentTraining.model_validate(TEXT), CPU
    )
    model = Certain(spec).eval()
    with torch.no_grad():
        model.head.weight.div_(9)
        objective.calibrate(model)
        measures = objective.measure(model)
    assert 0.15 == pytest.approx(measures["easy: calibration_error"], abs=0.01)
    assert 0.15 == pytest.approx(measures["hard: calibration_error"], abs=0.01)


def test_a_share_is_learned_as_a_probability() -> None:
    """Half of each label for a text in between; a hard label stays hard."""
    spec = SentimentSpec(**package(text_spec("word")), task="sentiment", pooling="mean", labels=("n", "p"))  # type: ignore[arg-type]
    examples = [LabelledText("a", "2", "", 0.5), LabelledText("a b", "p")]
    objective = SentimentObjective(
        spec, encoder("word", "a b"), examples, {}, SentimentTraining.model_validate(TEXT), CPU
    )
    (batch,) = objective.epoch(np.random.default_rng(0))
    assert {1: [0.5, 0.5], 2: [0.0, 1.0]} == dict(zip(batch.lengths.tolist(), batch.targets.tolist(), strict=True))


def test_a_second_head_learns_the_tags_of_the_data() -> None:
    """Every character of a word has the word's own tag, and its loss is added with its weight."""
    spec = TagSpec(**package(text_spec("character")), task="tag", scheme="bmes", labels=tuple("BMES"))  # type: ignore[arg-type]
    examples = [TaggedTokens(("我们", "在", "图书馆"), ("r", "p", "n"))]
    training = TagTraining.model_validate(TEXT | {"max_steps": 9, "auxiliary": 0.5})
    objective = TaggingObjective(spec, encoder("character", "我 们 在 图 书 馆"), "words", examples, {}, training, CPU)
    (batch,) = objective.epoch(np.random.default_rng(0))
    tags = auxiliary_tags(examples)
    assert list("rrpnnn") == [tags[index] for index in batch.auxiliary[0].tolist()]
    torch.manual_seed(0)
    model = AuxiliaryTagger(spec, len(tags)).eval()
    alone = objective.loss(plain_tagger(model), batch)
    second = torch.nn.functional.cross_entropy(model.both(batch.ids, batch.lengths)[1][0], batch.auxiliary[0])
    assert (alone + 0.5 * second).item() == pytest.approx(objective.loss(model, batch).item())


def test_a_teacher_pulls_the_mean_towards_its_forecast() -> None:
    """On a ramp a linear forecaster is nearly right, and with it alone what truly came counts for nothing."""
    ramp = np.stack([np.zeros(40), np.arange(40.0)], axis=1)
    objective, _ = forecasting(table=SeriesTable(("a", "b"), ramp), teacher=1.0, missing=0.0)
    (batch, *_) = objective.epoch(np.random.default_rng(0))
    torch.testing.assert_close(batch.targets, batch.guides, atol=0.3, rtol=0.1)


def test_a_linear_forecaster_goes_on_with_a_wave() -> None:
    """A sine is a linear function of its past; steps whose past has a gap have no forecast."""
    wave = np.sin(np.arange(400) / 24 * 2 * np.pi)
    forecaster = LinearForecaster([wave[:300]], lookback=48, horizon=12)
    found = forecaster.forecast(wave, np.array([320]))
    np.testing.assert_allclose(wave[321:333], found[0], atol=0.2)
    wave[310] = np.nan
    assert np.isnan(forecaster.forecast(wave, np.array([320]))).all()
    with pytest.raises(ValueError, match="60 steps"):
        LinearForecaster([wave[:59]], lookback=48, horizon=12)


def test_a_hidden_word_keeps_its_looks() -> None:
    """Of a share of tokens the first column is unknown, the others stay."""
    columns = (ColumnSpec(kind="token", size=9, dim=2), ColumnSpec(kind="shape", size=9, dim=2))
    text = TextSpec(tokenizer="word", columns=columns)
    spec = TagSpec(**package(text), task="tag", scheme="bio", labels=("O", "B-x"))  # type: ignore[arg-type]
    words = TextEncoder(text, Vocabulary.build({"token": Counter(["a", "B"]), "shape": Counter("xX")}, columns))
    examples = [TaggedTokens(("a", "B") * 20, ("O", "B-x") * 20)]
    training = TagTraining.model_validate(TEXT | {"max_steps": 99, "identity_dropout": 0.5})
    objective = TaggingObjective(spec, words, "tags", examples, {}, training, CPU)
    (batch,) = objective.epoch(np.random.default_rng(0))
    assert {1, 2, 3} == set(batch.ids[0, :, 0].tolist())
    assert {2, 3} == set(batch.ids[0, :, 1].tolist())


def test_o_is_moved_to_where_f1_is_best() -> None:
    """A tagger that says O of everything finds the entities it nearly found."""
    text = text_spec("word")
    spec = TagSpec(**package(text), task="tag", scheme="bio", labels=("B-x", "O"))  # type: ignore[arg-type]
    examples = [TaggedTokens(("a", "b"), ("B-x", "O"))]
    training = TagTraining.model_validate(TEXT | {"balance": True})
    objective = TaggingObjective(spec, encoder("word", "a b"), "tags", examples, {"dev": examples}, training, CPU)
    torch.manual_seed(0)
    model = SequenceTagger(spec).eval()
    with torch.no_grad():
        first, second = model(objective_ids(examples, encoder("word", "a b")), torch.tensor([2]))[0]
        difference = (second - first)[1] - (second - first)[0]
        model.head.weight.mul_(torch.sign(difference) / difference.abs() * 2)
        model.head.bias.copy_(torch.tensor([0.0, 0.0]))
        emissions = model(objective_ids(examples, encoder("word", "a b")), torch.tensor([2]))[0]
        middle = float((emissions[:, 1] - emissions[:, 0]).mean())
        model.head.bias.copy_(torch.tensor([0.0, 1.6 - middle]))
        assert 0.0 == objective.measure(model)["score"]
        objective.calibrate(model)
        assert 1.0 == objective.measure(model)["score"]


def objective_ids(examples: list[TaggedTokens], words: TextEncoder) -> Tensor:
    return torch.from_numpy(words.encode_tokens(examples[0].tokens).ids)[None]
