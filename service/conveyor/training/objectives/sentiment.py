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
from conveyor.training.calibration import fit_temperature
from conveyor.training.examples import LabelledText
from conveyor.training.measures import calibration_error, classification
from conveyor.training.recipe import SentimentTraining

__all__ = ["SentimentBatch", "SentimentObjective"]


@dataclass(frozen=True, slots=True, eq=False)
class SentimentBatch:
    """ids: int32 [rows, steps, columns]; lengths: int64 [rows]; targets: float32 [rows, labels], probabilities."""

    ids: Tensor
    lengths: Tensor
    targets: Tensor


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
        self._targets = _targets(train, spec)
        self._lengths = np.array([len(row) for row in self._rows], dtype=np.int64)
        self._dev = {
            name: ([encoder.encode(example.text).ids for example in part], _label_ids(part, spec))
            for name, part in dev.items()
        }

    def learn_too(self, rows: Sequence[npt.NDArray[np.int32]], shares: npt.NDArray[np.float32]) -> None:
        """Adds examples to learn from.

        Args:
            rows: int32 [steps, columns] each, one step at least.
            shares: float32 [rows], the probability of the last label; the rest is the first one's.
        """
        targets = np.zeros((len(rows), len(self._spec.labels)), dtype=np.float32)
        targets[:, 0], targets[:, -1] = 1.0 - shares, shares
        self._rows += rows
        self._targets = np.concatenate([self._targets, targets])
        self._lengths = np.concatenate([self._lengths, np.array([len(row) for row in rows], dtype=np.int64)])

    @torch.no_grad()
    def log_odds(self, model: SequenceClassifier, rows: Sequence[npt.NDArray[np.int32]]) -> npt.NDArray[np.float64]:
        """What a model says of rows: float64 [rows], the last label's logit minus the first one's."""
        logits: npt.NDArray[np.float64] = self._logits(model, rows).double().numpy()
        return logits[:, -1] - logits[:, 0]

    def num_batches(self) -> int:
        return len(self._batches(np.random.default_rng(0)))

    def epoch(self, rng: np.random.Generator) -> Iterator[SentimentBatch]:
        for members in self._batches(rng):
            ids = pad([self._rows[index] for index in members])
            hidden = hide_tokens(ids, self._training.word_dropout, UNKNOWN, rng)
            yield SentimentBatch(
                torch.from_numpy(hidden).to(self._device),
                torch.from_numpy(self._lengths[members]).to(self._device),
                torch.from_numpy(self._targets[members]).to(self._device),
            )

    def loss(self, model: SequenceClassifier, batch: SentimentBatch) -> Tensor:
        logits = model(batch.ids, batch.lengths).float()
        return F.cross_entropy(logits, batch.targets, label_smoothing=self._training.label_smoothing)

    def measure(self, model: SequenceClassifier) -> Mapping[str, float]:
        measures: dict[str, float] = {}
        for name, (rows, labels) in self._dev.items():
            logits = self._logits(model, rows)
            scores = classification(self._names(labels), self._names(logits.argmax(dim=1).numpy()))
            scores["calibration_error"] = _calibration_error(logits, torch.from_numpy(labels))
            measures |= {f"{name}: {measure}": value for measure, value in scores.items()}
        accuracies = [value for name, value in measures.items() if name.endswith(": accuracy")]
        return {"score": float(np.mean(accuracies))} | measures

    @torch.no_grad()
    def calibrate(self, model: SequenceClassifier) -> None:
        """Divides the logits, by the head's weights and bias, by the temperature (Guo et al. 2017, section 4.2) with
        the smallest calibration error of the worst part: what is promised is promised of each, and the likelihood of
        all together would let one part pay for the others."""
        parts = [(self._logits(model, rows), torch.from_numpy(labels)) for rows, labels in self._dev.values()]
        temperature = fit_temperature(
            lambda candidate: max(_calibration_error(logits / candidate, labels) for logits, labels in parts)
        )
        for parameter in model.head.parameters():
            parameter.div_(temperature)

    def _names(self, labels: npt.NDArray[np.int64]) -> list[str]:
        return [self._spec.labels[index] for index in labels]

    def _logits(self, model: SequenceClassifier, rows: Sequence[npt.NDArray[np.int32]]) -> Tensor:
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        found = torch.zeros(len(rows), len(self._spec.labels))
        budget, most = 4 * self._training.padded_steps, 4 * self._training.rows
        for members in draw_batches(lengths, padded_steps=budget, rows=most, rng=np.random.default_rng(0)):
            ids = torch.from_numpy(pad([rows[index] for index in members])).to(self._device)
            found[members] = model(ids, torch.from_numpy(lengths[members]).to(self._device)).cpu()
        return found

    def _batches(self, rng: np.random.Generator) -> list[npt.NDArray[np.int64]]:
        return draw_batches(self._lengths, padded_steps=self._training.padded_steps, rows=self._training.rows, rng=rng)


def _calibration_error(logits: Tensor, labels: Tensor) -> float:
    """Of float32 [rows, labels] and int64 [rows]."""
    stated, answers = torch.softmax(logits, dim=1).max(dim=1)
    return calibration_error(stated.numpy(), (answers == labels).numpy())


def _shortened(ids: npt.NDArray[np.int32], max_steps: int) -> npt.NDArray[np.int32]:
    """The beginning and the end of a long text: a review says what it thinks there."""
    if len(ids) <= max_steps:
        return ids
    head = max_steps // 2
    return np.concatenate([ids[:head], ids[len(ids) - (max_steps - head) :]])


def _targets(examples: Sequence[LabelledText], spec: SentimentSpec) -> npt.NDArray[np.float32]:
    """float32 [examples, labels]: all on the label, or shared between the first and the last one."""
    targets = np.zeros((len(examples), len(spec.labels)), dtype=np.float32)
    hard = [index for index, example in enumerate(examples) if example.share is None]
    targets[hard, _label_ids([examples[index] for index in hard], spec)] = 1.0
    for index, example in enumerate(examples):
        if example.share is not None:
            targets[index, [0, -1]] = 1.0 - example.share, example.share
    return targets


def _label_ids(examples: Sequence[LabelledText], spec: SentimentSpec) -> npt.NDArray[np.int64]:
    unknown = {example.label for example in examples} - set(spec.labels)
    if unknown:
        raise InvalidArgument(f"labels {sorted(unknown)} of the data are not among {list(spec.labels)}")
    return np.array([spec.labels.index(example.label) for example in examples], dtype=np.int64)
