"""Sentences labelled by other networks, for one network to learn from beside the data's own labels.

Several networks that differ only in their seed agree where they know and differ where they guess; what they say on
average is better than what one says, and a network that learns from it comes near that (Hinton et al. 2015,
"Distilling the knowledge in a neural network"; for LSTMs Tang et al. 2019). Reviews hold any number of sentences to
ask them about, and the label of a review says something about each of its sentences.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from conveyor.features.text import TextEncoder
from conveyor.features.vocabulary import UNKNOWN
from conveyor.nn.models import SequenceClassifier
from conveyor.training.loop import run
from conveyor.training.objectives.sentiment import SentimentObjective
from conveyor.training.recipe import SentimentTraining, Teaching

__all__ = ["Teachers", "sentences"]

_MARKS = (".", "!", "?", "...", "!!", "!!!", "??", "???")
_FEWEST_STEPS, _MOST_STEPS = 4, 50
_MOST_UNKNOWN = 0.15  # share of a sentence's steps

_Ids = npt.NDArray[np.int32]


class Teachers:
    """Networks that learn first and then label sentences.

    Args:
        make: A new network, drawn from a seed.
        short: What the teachers learn from, and what they are scored on.
        pupil: What gets the sentences.
        texts: Ids of texts to take sentences from, each with its leaning: -1 if its label is the first, 1 if it is the
            last, 0 if it has none.
    """

    def __init__(
        self,
        make: Callable[[int], SequenceClassifier],
        short: SentimentObjective,
        pupil: SentimentObjective,
        encoder: TextEncoder,
        texts: Sequence[tuple[_Ids, int]],
        training: SentimentTraining,
        teaching: Teaching,
    ) -> None:
        self._make, self._short, self._pupil = make, short, pupil
        self._training, self._teaching = training, teaching
        self._marks = {int(encoder.encode_ids(mark)[0, 0]) for mark in _MARKS} - {UNKNOWN}
        self._texts = texts

    def teach(self, checkpoint: Callable[[int], Path], *, resume: bool, progress: bool) -> float:
        """Trains the teachers and gives the sentences they label to the pupil to learn.

        Args:
            checkpoint: The file for each teacher, by its number.

        Returns:
            Seconds the teachers took to learn.
        """
        teaching = self._teaching
        asked, leanings = self._asked()
        odds = np.zeros(len(asked), np.float64)
        seconds = 0.0
        for number in range(1, teaching.teachers + 1):
            seed = self._training.seed + number
            own = self._training.model_copy(update={"seed": seed, "epochs": teaching.epochs})
            teacher = self._make(seed)
            outcome = run(teacher, self._short, own, checkpoint(number), resume=resume, progress=progress)
            seconds += outcome.seconds
            odds += self._short.log_odds(teacher, asked) / teaching.teachers
        odds = teaching.sharpness * odds + teaching.leaning * leanings
        self._pupil.learn_too(asked, (1 / (1 + np.exp(-odds))).astype(np.float32))
        return seconds

    def _asked(self) -> tuple[list[_Ids], npt.NDArray[np.float64]]:
        """Sentences drawn from all texts, none twice, and the leanings of their texts."""
        found: dict[bytes, tuple[_Ids, int]] = {}
        for ids, leaning in self._texts:
            for sentence in sentences(ids, self._marks):
                found.setdefault(sentence.tobytes(), (sentence, leaning))
        order = np.random.default_rng(self._training.seed).permutation(len(found))[: self._teaching.sentences]
        every = list(found.values())
        picked = [every[index] for index in order]
        return [sentence for sentence, _ in picked], np.array([leaning for _, leaning in picked], np.float64)


def sentences(ids: _Ids, marks: set[int]) -> Iterator[_Ids]:
    """The sentences of a text, int32 [steps, columns] each, without those that are very short, very long, or of words
    that are mostly unknown. A text that is one sentence has none to give.

    Args:
        ids: int32 [steps, columns].
        marks: Ids of the first column that end a sentence.
    """
    ends = np.flatnonzero(np.isin(ids[:, 0], list(marks))) + 1
    if not len(ends) or ends[0] == len(ids):
        return
    for sentence in np.split(ids, ends):
        fits = _FEWEST_STEPS <= len(sentence) <= _MOST_STEPS
        if fits and (sentence[:, 0] == UNKNOWN).mean() <= _MOST_UNKNOWN:
            yield sentence
