"""How far a candidate's answers are from the reference's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from conveyor.domain import ModelKey
from conveyor.engine.executors.port import Executor
from conveyor.engine.planning.batches import batches_of
from conveyor.nn.models import SequenceClassifier, SequenceTagger, TaskModel
from conveyor.wire.messages import Inputs

__all__ = ["Agreement", "Answers", "compare", "margins_of", "run_rows"]

# By row: what an executor gives, without padding.
Answers = Sequence[Mapping[str, npt.NDArray[np.generic]]]


@dataclass(frozen=True, slots=True)
class Agreement:
    """flips, flips_within: labels or tags that differ, where the reference's two highest probabilities are further
    apart than the margin, and where they are not. largest_difference: of any number, absolute up to 1 and relative
    above; infinite if one is not finite."""

    flips: int
    flips_within: int
    largest_difference: float


def run_rows(executor: Executor[Any], key: ModelKey, rows: Sequence[Inputs]) -> Answers:
    """The answers of a model to all rows."""
    answers: dict[int, Mapping[str, npt.NDArray[np.generic]]] = {}
    for indices, batch in batches_of(rows):
        result = executor.run(key, batch)
        for place, index in enumerate(indices):
            length = len(rows[index])
            answers[index] = {
                name: array[place, :length] if result.stepwise else array[place]
                for name, array in result.arrays.items()
            }
    return [answers[index] for index in range(len(rows))]


def margins_of(network: TaskModel, rows: Sequence[Inputs]) -> Sequence[npt.NDArray[np.float32]]:
    """By row, how far the two highest probabilities are apart, for each label that is given: [1] or [steps]."""
    margins = [np.zeros(0, dtype=np.float32)] * len(rows)
    for indices, found, lengths in _margins(network, rows):
        for place, index in enumerate(indices):
            margins[index] = found[place, : lengths[place]]
    return margins


def _margins(
    network: TaskModel, rows: Sequence[Inputs]
) -> Iterator[tuple[list[int], npt.NDArray[np.float32], Sequence[int]]]:
    device = next(network.parameters()).device
    for indices, batch in batches_of(rows):
        with torch.inference_mode():
            inputs = torch.from_numpy(batch.inputs).to(device)
            lengths = torch.from_numpy(batch.lengths).to(device, torch.int64)
            match network:
                case SequenceClassifier():
                    probabilities = network.predict(inputs, lengths)["probabilities"][:, None]
                    counts = [1] * len(indices)
                case SequenceTagger():
                    probabilities = network.probabilities(inputs, lengths)
                    counts = batch.lengths.tolist()
                case _:  # a forecast has no labels
                    return
            highest = probabilities.topk(2, dim=-1).values
            yield indices, (highest[..., 0] - highest[..., 1]).cpu().numpy(), counts


def compare(expected: Answers, actual: Answers, margins: Sequence[npt.NDArray[np.float32]], margin: float) -> Agreement:
    """Compares two executions of the same rows.

    Args:
        margins: Of the reference, as from `margins_of`.
        margin: A label that the reference gives with a smaller one may differ.
    """
    flips = flips_within = 0
    largest = 0.0
    for left, right, apart in zip(expected, actual, margins, strict=True):
        same = _labels(left) == _labels(right)
        flips += int((~same & (apart > margin)).sum())
        flips_within += int((~same & (apart <= margin)).sum())
        for name, array in left.items():
            if name != "tags":
                # The score of another tag is no number to compare with.
                which = same if name == "scores" else slice(None)
                largest = max(largest, _difference(array[which], right[name][which]))
    return Agreement(flips, flips_within, largest)


def _labels(answer: Mapping[str, npt.NDArray[np.generic]]) -> npt.NDArray[np.generic]:
    if "tags" in answer:
        return answer["tags"]
    if "probabilities" in answer:
        return np.atleast_1d(answer["probabilities"].argmax())
    return np.zeros(0, dtype=np.int32)


def _difference(expected: npt.NDArray[np.generic], actual: npt.NDArray[np.generic]) -> float:
    if expected.size == 0:
        return 0.0
    left, right = expected.astype(np.float64), actual.astype(np.float64)
    found = float((np.abs(left - right) / np.maximum(1.0, np.abs(left))).max())
    return found if np.isfinite(found) else float("inf")
