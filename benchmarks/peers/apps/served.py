"""What every peer serves: the package `sentiment-en`, as one of two functions from texts to answers.

plain     what a user of torch would write: the package's weights in `torch.nn.LSTM`, both directions in one call over
          a packed sequence, float32. Packing is what makes the backward direction right beside longer rows, and at
          16 rows and more it is also the fastest of the exact ways on the machines we tried.
engine    Conveyor's own executor behind the peer's batcher, with the plan in force: rows sorted, shapes rounded, steps
          cut in stairs.

Runs in the peer's own Python; the environment says which (`PEER_FUNCTION`), where the package is (`PEER_PACKAGE`), and
what the engine must be executed by, which is what our server said (`PEER_PLAN`: executor and precision).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from conveyor.domain import ModelKey
from conveyor.engine.batching.shapes import Stair, bucket, staircase
from conveyor.engine.executors.planned import open_executor
from conveyor.engine.executors.port import Batch
from conveyor.engine.warmup import measure_costs
from conveyor.features.text import TextEncoder
from conveyor.repository.manifest import read_manifest
from conveyor.spec import SentimentSpec

__all__ = ["Answers", "make_function"]

Answers = list[tuple[str, float]]


class _Classifier(nn.Module):
    """Embedding → bidirectional LSTM → maximum over the row's own steps → linear → softmax."""

    def __init__(self, spec: SentimentSpec, weights: dict[str, Tensor]) -> None:
        super().__init__()
        (column,) = spec.text.columns
        self.embedding = nn.Embedding(column.size, column.dim, padding_idx=0)
        self.lstm = nn.LSTM(column.dim, spec.recurrent.hidden, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * spec.recurrent.hidden, len(spec.labels))
        names = {"forwards": "_l0", "backwards": "_l0_reverse"}
        own = {"embedding.weight": weights[f"embeddings.{column.name}.weight"]}
        own |= {f"head.{part}": weights[f"head.{part}"] for part in ("weight", "bias")}
        for direction, suffix in names.items():
            for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                own[f"lstm.{part}{suffix}"] = weights[f"recurrent.layers.0.{direction}.{part}_l0"]
        self.load_state_dict(own)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """int64 [rows, steps], int64 [rows] → float32 [rows, labels]."""
        packed = pack_padded_sequence(self.embedding(ids), lengths, batch_first=True, enforce_sorted=False)
        outputs, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, padding_value=-torch.inf)
        return self.head(outputs.amax(dim=1)).softmax(dim=-1)


def make_function() -> Callable[[Sequence[str]], Answers]:
    """The function that the environment names; loads the package."""
    torch.set_num_threads(1)
    directory = Path(os.environ["PEER_PACKAGE"])
    spec = read_manifest(directory / "model.toml")
    assert isinstance(spec, SentimentSpec)
    encoder = TextEncoder.load(spec.text, directory)
    compute = {"plain": _plain, "engine": _engine}[os.environ["PEER_FUNCTION"]](spec, directory)

    def answer(texts: Sequence[str]) -> Answers:
        probabilities = compute([encoder.encode_ids(text) for text in texts])
        best = probabilities.argmax(axis=1).tolist()
        return [(spec.labels[label], float(row[label])) for label, row in zip(best, probabilities, strict=True)]

    return answer


def _plain(spec: SentimentSpec, directory: Path) -> Callable[[list[np.ndarray]], np.ndarray]:
    weights = {name: tensor.float() for name, tensor in load_file(directory / "weights.safetensors").items()}
    model = _Classifier(spec, weights).eval()

    def compute(rows: list[np.ndarray]) -> np.ndarray:
        lengths = torch.tensor([len(row) for row in rows])
        ids = pad_sequence([torch.from_numpy(row[:, 0]) for row in rows], batch_first=True)
        with torch.inference_mode():
            return model(ids, lengths).numpy()

    return compute


def _engine(_: SentimentSpec, directory: Path) -> Callable[[list[np.ndarray]], np.ndarray]:
    key = ModelKey("sentiment-en", "1")
    executor = open_executor("cpu", "auto")
    executor.load(key, directory)
    plan = executor.plan(key)
    if f"{plan.executor} {plan.precision}" != os.environ["PEER_PLAN"]:
        raise RuntimeError(f"our server computes {os.environ['PEER_PLAN']}, this environment {plan}")
    costs = measure_costs(executor, key, time.monotonic)

    def compute(rows: list[np.ndarray]) -> np.ndarray:
        order = sorted(range(len(rows)), key=lambda index: -len(rows[index]))
        stairs = staircase([len(rows[index]) for index in order], costs) or [Stair(bucket(len(rows)), 1)]
        inputs = np.zeros((stairs[0].rows, sum(stair.steps for stair in stairs), rows[0].shape[1]), dtype=np.int32)
        lengths = np.zeros(stairs[0].rows, dtype=np.int32)
        for place, index in enumerate(order):
            lengths[place] = len(rows[index])
            inputs[place, : lengths[place]] = rows[index]
        found = executor.run(key, Batch(inputs, lengths, stairs)).arrays["probabilities"]
        probabilities = np.empty((len(rows), found.shape[1]), dtype=found.dtype)
        probabilities[order] = found[: len(rows)]
        return probabilities

    return compute
