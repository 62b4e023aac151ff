"""sequence → tag per token: the path's likelihood under the CRF, or cross entropy of each tag."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from conveyor.errors import InvalidArgument
from conveyor.features.tags import WORD, spans_from_tags, tags_from_spans
from conveyor.features.text import EncodedText, TextEncoder
from conveyor.features.vocabulary import UNKNOWN
from conveyor.nn.models import SequenceTagger
from conveyor.spec import TagSpec
from conveyor.training.auxiliary import AuxiliaryTagger
from conveyor.training.batches import draw_batches, hide_tokens, pad
from conveyor.training.examples import TaggedTokens
from conveyor.training.measures import calibration_error, spans_f1, tagging_accuracy
from conveyor.training.recipe import TagTraining

__all__ = ["DrawEncoders", "TagBatch", "TaggingObjective", "auxiliary_tags", "word_tags"]

_TEMPERATURES = (0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0)
_SHIFTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0)
_CALIBRATED_ROWS = 400  # of each part, for each temperature


DrawEncoders = Callable[[np.random.Generator], Sequence[TextEncoder]]


@dataclass(frozen=True, slots=True, eq=False)
class TagBatch:
    """ids: int32 [rows, steps, columns]; lengths: int64 [rows].

    tags: int64 [rows, steps], 0 as padding; auxiliary: the same for the second head, empty without one.
    """

    ids: Tensor
    tags: Tensor
    auxiliary: Tensor
    lengths: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class _Row:
    """ids: int32 [steps, columns]; tags: the truth, one a step; breaks: where a step cannot join the one before;
    sources: the data's own tag of the word a step belongs to."""

    ids: npt.NDArray[np.int32]
    tags: list[str]
    breaks: list[bool]
    sources: list[str]


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    """Part of a training text. ids: int32 [steps, columns]; tags, auxiliary: int64 [steps], ids of labels and of the
    second head's tags."""

    ids: npt.NDArray[np.int32]
    tags: npt.NDArray[np.int64]
    auxiliary: npt.NDArray[np.int64]


class TaggingObjective:
    """Learns the tags of `train`; scored by the mean over the parts of `dev` of F1 (spans) or accuracy (plain tags).

    Args:
        learns: `tags`: the tags of the examples' own tokens. `words`: where their tokens begin and end in the raw
            text, which the encoder splits by itself.
        draw_encoders: Gives the encoder of each training example, drawn anew for each epoch, where it is not
            `encoder`, which reads the development part.
    """

    def __init__(
        self,
        spec: TagSpec,
        encoder: TextEncoder,
        learns: str,
        train: Sequence[TaggedTokens],
        dev: Mapping[str, Sequence[TaggedTokens]],
        training: TagTraining,
        device: torch.device,
        draw_encoders: DrawEncoders | None = None,
    ) -> None:
        self._spec, self._training, self._device = spec, training, device
        self._draw_encoders = draw_encoders
        self._encoders: Sequence[TextEncoder] = [encoder] * len(train)
        self._learns, self._train = learns, train
        self._label_ids = {label: index for index, label in enumerate(spec.labels)}
        self._auxiliary_ids = {tag: index for index, tag in enumerate(auxiliary_tags(train))}
        self._words_of_tag: dict[str, list[str]] = {}
        for example in train:
            for token, tag in zip(example.tokens, example.tags, strict=True):
                self._words_of_tag.setdefault(tag, []).append(token)
        self._words_of_tag = {tag: sorted(set(words)) for tag, words in self._words_of_tag.items() if tag != "O"}
        self._pieces = self._cut(train)
        self._dev = {name: [_row(example, encoder, learns) for example in part] for name, part in dev.items()}

    def num_batches(self) -> int:
        return len(self._batches(self._pieces, np.random.default_rng(0)))

    def epoch(self, rng: np.random.Generator) -> Iterator[TagBatch]:
        pieces = self._pieces
        if self._draw_encoders is not None:
            self._encoders = self._draw_encoders(rng)
        if self._training.substitution or self._draw_encoders is not None:
            pieces = self._cut([self._substituted(example, rng) for example in self._train])
        for members in self._batches(pieces, rng):
            ids = pad([pieces[index].ids for index in members])
            hidden = hide_tokens(ids, self._training.word_dropout, UNKNOWN, rng)
            if self._training.identity_dropout:
                hidden = hidden.copy()
                hidden[..., :1] = hide_tokens(hidden[..., :1], self._training.identity_dropout, UNKNOWN, rng)
            auxiliary = pad([pieces[index].auxiliary for index in members])
            yield TagBatch(
                torch.from_numpy(hidden).to(self._device),
                torch.from_numpy(pad([pieces[index].tags for index in members])).to(self._device),
                torch.from_numpy(auxiliary).to(self._device),
                torch.tensor([len(pieces[index].tags) for index in members], device=self._device),
            )

    def loss(self, model: SequenceTagger, batch: TagBatch) -> Tensor:
        inside = torch.arange(batch.ids.shape[1], device=self._device)[None, :] < batch.lengths[:, None]
        if not isinstance(model, AuxiliaryTagger):
            return self._main_loss(model, model(batch.ids, batch.lengths).float(), batch, inside)
        emissions, auxiliary = model.both(batch.ids, batch.lengths)
        main = self._main_loss(model, emissions.float(), batch, inside)
        second = F.cross_entropy(auxiliary.float()[inside], batch.auxiliary[inside])
        return main + self._training.auxiliary * second

    def _main_loss(self, model: SequenceTagger, emissions: Tensor, batch: TagBatch, inside: Tensor) -> Tensor:
        if model.crf is not None:
            return -model.crf.log_likelihood(emissions, batch.tags, batch.lengths).sum() / batch.lengths.sum()
        return F.cross_entropy(emissions[inside], batch.tags[inside])

    def measure(self, model: SequenceTagger) -> Mapping[str, float]:
        measures: dict[str, float] = {}
        main = "accuracy" if self._spec.scheme == "plain" else "f1"
        for name, rows in self._dev.items():
            predicted, probabilities = self._predict(model, rows)
            if self._spec.scheme == "plain":
                scores = tagging_accuracy([row.tags for row in rows], predicted)
            else:
                scores = spans_f1(
                    [self._spans(row.tags, row) for row in rows],
                    [self._spans(tags, row) for tags, row in zip(predicted, rows, strict=True)],
                )
            scores["calibration_error"] = _calibration_error(rows, predicted, probabilities)
            measures |= {f"{name}: {measure}": value for measure, value in scores.items()}
        mains = [value for name, value in measures.items() if name.endswith(f": {main}")]
        return {"score": float(np.mean(mains))} | measures

    @torch.no_grad()
    def calibrate(self, model: SequenceTagger) -> None:
        """Divides all scores, those of a CRF too, by the temperature with the least calibration error on the
        development parts; the best path stays the best. With `balance` the score of O is moved before that."""
        if self._training.balance:
            self._balance(model)
        scaled = [model.head.weight, model.head.bias, *(model.crf.parameters() if model.crf is not None else ())]
        original = [parameter.clone() for parameter in scaled]
        rows = [row for part in self._dev.values() for row in part[:: max(1, len(part) // _CALIBRATED_ROWS)]]
        errors = {}
        for temperature in _TEMPERATURES:
            for parameter, value in zip(scaled, original, strict=True):
                parameter.copy_(value / temperature)
            predicted, probabilities = self._predict(model, rows)
            errors[temperature] = _calibration_error(rows, predicted, probabilities)
        best = min(errors, key=errors.__getitem__)
        for parameter, value in zip(scaled, original, strict=True):
            parameter.copy_(value / best)

    def _balance(self, model: SequenceTagger) -> None:
        outside = self._label_ids["O"]
        original = float(model.head.bias[outside])
        scores = {}
        for shift in _SHIFTS:
            model.head.bias[outside] = original - shift
            scores[shift] = self.measure(model)["score"]
        model.head.bias[outside] = original - max(scores, key=scores.__getitem__)

    def _spans(self, tags: Sequence[str], row: _Row) -> list[tuple[int, int, str]]:
        return spans_from_tags(tags, self._spec.scheme, row.breaks)

    def _predict(
        self, model: SequenceTagger, rows: Sequence[_Row]
    ) -> tuple[list[list[str]], list[npt.NDArray[np.float32]]]:
        """The tags of each row, and how probable each is."""
        lengths = np.array([len(row.tags) for row in rows], dtype=np.int64)
        predicted: list[list[str]] = [[] for _ in rows]
        probabilities = [np.zeros(0, np.float32) for _ in rows]
        budget, most = 4 * self._training.padded_steps, 4 * self._training.rows
        for members in draw_batches(lengths, padded_steps=budget, rows=most, rng=np.random.default_rng(0)):
            ids = torch.from_numpy(pad([rows[index].ids for index in members])).to(self._device)
            found = model.predict(ids, torch.from_numpy(lengths[members]).to(self._device))
            tags, scores = found["tags"].cpu().numpy(), found["scores"].cpu().numpy()
            for index, path, score in zip(members, tags, scores, strict=True):
                predicted[index] = [self._spec.labels[tag] for tag in path[: lengths[index]]]
                probabilities[index] = score[: lengths[index]]
        return predicted, probabilities

    def _cut(self, examples: Sequence[TaggedTokens]) -> list[_Piece]:
        """The pieces of the training examples, or of what came in the place of each."""
        pieces = []
        for example, encoder in zip(examples, self._encoders, strict=True):
            row = _row(example, encoder, self._learns)
            unknown = set(row.tags) - self._label_ids.keys()
            if unknown:
                raise InvalidArgument(f"tags {sorted(unknown)} of the data are not among the labels")
            tags = np.array([self._label_ids[tag] for tag in row.tags], dtype=np.int64)
            sources = np.array([self._auxiliary_ids[tag] for tag in row.sources], dtype=np.int64)
            for first in range(0, len(tags), self._training.max_steps):
                last = first + self._training.max_steps
                pieces.append(_Piece(row.ids[first:last], tags[first:last], sources[first:last]))
        return pieces

    def _substituted(self, example: TaggedTokens, rng: np.random.Generator) -> TaggedTokens:
        """The example with some words replaced by others of the same tag, rare ones as often as frequent ones: a word
        seen once among a million comes again in other sentences."""
        chosen = rng.random(len(example.tokens)) < self._training.substitution
        chosen &= np.array([tag in self._words_of_tag for tag in example.tags], dtype=bool)
        if not chosen.any():
            return example
        tokens = list(example.tokens)
        for index in np.flatnonzero(chosen):
            words = self._words_of_tag[example.tags[index]]
            tokens[index] = words[rng.integers(len(words))]
        return TaggedTokens(tuple(tokens), example.tags)

    def _batches(self, pieces: Sequence[_Piece], rng: np.random.Generator) -> list[npt.NDArray[np.int64]]:
        lengths = np.array([len(piece.tags) for piece in pieces], dtype=np.int64)
        return draw_batches(lengths, padded_steps=self._training.padded_steps, rows=self._training.rows, rng=rng)


def _calibration_error(
    rows: Sequence[_Row], predicted: Sequence[Sequence[str]], probabilities: Sequence[npt.NDArray[np.float32]]
) -> float:
    right = [a == b for row, tags in zip(rows, predicted, strict=True) for a, b in zip(row.tags, tags, strict=True)]
    return calibration_error(np.concatenate(probabilities), np.array(right))


def auxiliary_tags(train: Sequence[TaggedTokens]) -> list[str]:
    """The tags of the data's own tokens, in the order of the second head's outputs."""
    return sorted({tag for example in train for tag in example.tags})


def word_tags(encoded: EncodedText, words: Sequence[tuple[int, int]]) -> list[str]:
    """BMES tags of encoded tokens from where words stand in the text, in code points.

    Raises:
        ValueError: A word begins or ends inside a token, or holds none.
    """
    first_at = {int(start): index for index, start in enumerate(encoded.starts)}
    after = {int(end): index + 1 for index, end in enumerate(encoded.ends)}
    if any(start not in first_at or end not in after for start, end in words):
        raise ValueError("a word begins or ends inside a token")
    spans = [(first_at[start], after[end], WORD) for start, end in words]
    return tags_from_spans(spans, len(encoded.starts), "bmes")


def _row(example: TaggedTokens, encoder: TextEncoder, learns: str) -> _Row:
    if learns == "tags":
        encoded = encoder.encode_tokens(example.tokens)
        return _Row(encoded.ids, list(example.tags), [False] * len(example.tags), list(example.tags))
    encoded = encoder.encode(example.raw_text)
    breaks = [False, *(encoded.starts[1:] > encoded.ends[:-1]).tolist()][: len(encoded.starts)]
    spans = example.word_spans()
    word = np.searchsorted([start for start, _ in spans], encoded.starts, side="right") - 1
    sources = [example.tags[index] for index in word]
    return _Row(encoded.ids, word_tags(encoded, spans), breaks, sources)
