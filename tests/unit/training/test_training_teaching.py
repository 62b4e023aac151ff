"""Sentences that other networks label."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from conveyor.features.text import TextEncoder
from conveyor.features.vocabulary import Vocabulary
from conveyor.nn.models import SequenceClassifier
from conveyor.spec import ColumnSpec, RecurrentSpec, SentimentSpec, TextSpec
from conveyor.training.examples import LabelledText
from conveyor.training.objectives.sentiment import SentimentObjective
from conveyor.training.recipe import SentimentTraining, Teaching
from conveyor.training.teaching import Teachers, sentences

TEXT = TextSpec(tokenizer="word", columns=(ColumnSpec(kind="lower", size=30, dim=3),))
SPEC = SentimentSpec(
    format_version=1,
    name="tiny",
    description="A tiny model.",
    license="CC0-1.0",
    recurrent=RecurrentSpec(hidden=2),
    text=TEXT,
    task="sentiment",
    pooling="mean",
    labels=("bad", "so so", "good"),
)
TRAINING = SentimentTraining(
    seed=3, epochs=1, patience=1, learning_rate=0.1, clip_norm=1.0, padded_steps=100, rows=64, max_steps=20
)
WORDS = "a b c d e f . !"


def encoder() -> TextEncoder:
    vocabulary = Vocabulary.build({"lower": Counter(WORDS.split())}, TEXT.columns)
    return TextEncoder(TEXT, vocabulary)


def objective(examples: list[LabelledText]) -> SentimentObjective:
    return SentimentObjective(SPEC, encoder(), examples, {"dev": examples}, TRAINING, torch.device("cpu"))


class Fixed(SequenceClassifier):
    """Says the same of everything, whatever it learns; by its seed more or less sure."""

    def __init__(self, seed: int) -> None:
        super().__init__(SPEC)
        self.odds = float(seed)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        logits: Tensor = self.head.bias * 0 + torch.tensor([0.0, 9.0, self.odds])
        return logits.expand(len(ids), 3)


def found(text: str) -> list[int]:
    words = encoder()
    marks = {int(words.encode_ids(mark)[0, 0]) for mark in ".!"}
    return [len(sentence) for sentence in sentences(words.encode_ids(text), marks)]


def test_a_text_gives_its_sentences() -> None:
    """Those that are neither very short nor very long nor mostly unknown; a sentence alone is no text to cut."""
    assert [4, 5, 4] == found("a b c . a b ! a b c d ! a b c . x y z a . a b c d e f " + "a " * 50)
    assert [4, 4] == found("a b c . d e f a")
    assert [] == found("a b c d e f .")
    assert [] == found("a b c d e f")
    assert [] == found("")


def test_the_pupil_learns_what_the_teachers_say_on_average(tmp_path: Path) -> None:
    """Each sentence once, its odds sharpened and moved towards the label of its text; nothing for the label between."""
    pupil = objective([LabelledText("a", "so so")])
    words = encoder()
    texts = [("a b c . d e f .", 1), ("f e d c b . a b c .", -1), ("e e e e . e e e e .", 0)]
    teaching = Teaching(teachers=2, epochs=1, longest=9, sentences=9, sharpness=0.5, leaning=1.0)
    asked = [(words.encode_ids(text), leaning) for text, leaning in texts]
    teachers = Teachers(Fixed, objective([LabelledText("b", "bad")]), pupil, words, asked, TRAINING, teaching)

    seconds = teachers.teach(lambda number: tmp_path / f"{number}.pt", resume=True, progress=False)

    assert seconds > 0
    assert {"1.pt", "2.pt"} == {path.name for path in tmp_path.iterdir()}
    learned = [
        (tuple(words.tolist()), target.tolist())
        for batch in pupil.epoch(np.random.default_rng(0))
        for words, target in zip(batch.ids[..., 0], batch.targets, strict=True)
    ]
    by_leaning = {leaning: 1 / (1 + np.exp(-(0.5 * 4.5 + leaning))) for leaning in (1, 0, -1)}
    shares = sorted(round(target[2], 5) for _, target in learned)
    # "a b c ." stands in two texts: the first one's leaning counts
    expected = [0.0, *(round(by_leaning[leaning], 5) for leaning in (-1, 0, 1, 1))]
    assert np.allclose(expected, shares, atol=1e-5)
    assert [0.0, 1.0, 0.0] in [target for _, target in learned]
    assert all(target[0] + target[2] == 1.0 for _, target in learned if target[1] == 0.0)


def test_no_more_sentences_are_asked_about_than_wanted(tmp_path: Path) -> None:
    """They are drawn by the seed, so that the same recipe gives the same."""
    words = encoder()
    asked = [(words.encode_ids("a b c . d e f . a a a . b b b . c c c ."), 0)]
    teaching = Teaching(teachers=1, epochs=1, longest=9, sentences=2)
    drawn = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        pupil = objective([LabelledText("a", "so so")])
        short = objective([LabelledText("b", "bad")])
        Teachers(Fixed, short, pupil, words, asked, TRAINING, teaching).teach(
            lambda number, folder=folder: tmp_path / folder / f"{number}.pt",  # type: ignore[misc]
            resume=True,
            progress=False,
        )
        drawn.append([batch.ids.tolist() for batch in pupil.epoch(np.random.default_rng(0))])
    assert drawn[0] == drawn[1]
    assert sum(map(len, drawn[0])) == 3
