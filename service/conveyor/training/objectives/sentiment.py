"""sequence → class: cross entropy on the labels, accuracy and macro F1 as the score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from conveyor.errors import InvalidArgument
from conveyor.features.text import TextEncoder
from conveyor.features.vocabulary import UNKNOWN
from conveyor.nn.models import SequenceClassifier
from conveyor.spec import SentimentSpec
from conveyor.training.batches import draw_batches, hide_tokens, pad
from conveyor.training.examples import LabelledText
from conveyor.training.measures import classification
from conveyor.training.recipe import SentimentTraining

__all__ = ["SentimentBatch", "SentimentObjective"]


@dataclass(frozen=True, slots=True, eq=False)
class SentimentBatch:
    """ids: int32 [rows, steps, columns]; lengths, labels: int64 [rows]."""

    ids: Tensor
    lengths: Tensor
    labels: Tensor


class SentimentObjective:
    """Learns the labels of `train`; scored by the mean accuracy over the parts of `dev`."""

    def __init__(
        self,
        spec: SentimentSpec,
        encoder: TextEncoder,
        train: Sequence[LabelledText],
        dev: Mapping[str, Sequence[LabelledText]],
        training: SentimentTraining,
        device: torch.device,
    ) -> None:
        self._spec, self._training, self._device = spec, training, device
        self._rows = [_shortened(encoder.encode(example.text).ids, training.max_steps) for example in train]
        self._labels = _label_ids(train, spec)
        self._lengths = np.array([len(row) for row in self._rows], dtype=np.int64)
        self._dev = {
            name: ([encoder.encode(example.text).ids for example in part], [example.label for example in part])
            for name, part in dev.items()
        }
        for part in dev.values():
            _label_ids(part, spec)

    def num_batches(self) -> int:
        return len(self._batches(np.random.default_rng(0)))

    def epoch(self, rng: np.random.Generator) -> Iterator[SentimentBatch]:
        for members in self._batches(rng):
            ids = pad([self._rows[index] for index in members])
            hidden = hide_tokens(ids, self._training.word_dropout, UNKNOWN, rng)
            yield SentimentBatch(
                torch.from_numpy(hidden).to(self._device),
                torch.from_numpy(self._lengths[members]).to(self._device),
                torch.from_numpy(self._labels[members]).to(self._device),
            )

    def loss(self, model: SequenceClassifier, batch: SentimentBatch) -> Tensor:
        return F.cross_entropy(model(batch.ids, batch.lengths), batch.labels)

    def measure(self, model: SequenceClassifier) -> Mapping[str, float]:
        measures: dict[str, float] = {}
        for name, (rows, labels) in self._dev.items():
            scores = classification(labels, self._predict(model, rows))
            measures |= {f"{name}: {measure}": value for measure, value in scores.items()}
        accuracies = [value for name, value in measures.items() if name.endswith(": accuracy")]
        return {"score": float(np.mean(accuracies))} | measures

    def _predict(self, model: SequenceClassifier, rows: Sequence[npt.NDArray[np.int32]]) -> list[str]:
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        predicted = np.zeros(len(rows), dtype=np.int64)
        budget, most = 4 * self._training.padded_steps, 4 * self._training.rows
        for members in draw_batches(lengths, padded_steps=budget, rows=most, rng=np.random.default_rng(0)):
            ids = torch.from_numpy(pad([rows[index] for index in members])).to(self._device)
            logits = model(ids, torch.from_numpy(lengths[members]).to(self._device))
            predicted[members] = logits.argmax(dim=1).cpu().numpy()
        return [self._spec.labels[index] for index in predicted]

    def _batches(self, rng: np.random.Generator) -> list[npt.NDArray[np.int64]]:
        return draw_batches(self._lengths, padded_steps=self._training.padded_steps, rows=self._training.rows, rng=rng)


def _shortened(ids: npt.NDArray[np.int32], max_steps: int) -> npt.NDArray[np.int32]:
    """The beginning and the end of a long text: a review says what it thinks there."""
    if len(ids) <= max_steps:
        return ids
    head = max_steps // 2
    return np.concatenate([ids[:head], ids[len(ids) - (max_steps - head) :]])


def _label_ids(examples: Sequence[LabelledText], spec: SentimentSpec) -> npt.NDArray[np.int64]:
    unknown = {example.label for example in examples} - set(spec.labels)
    if unknown:
        raise InvalidArgument(f"labels {sorted(unknown)} of the data are not among {list(spec.labels)}")
    return np.array([spec.labels.index(example.label) for example in examples], dtype=np.int64)
