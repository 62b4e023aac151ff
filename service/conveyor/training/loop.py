"""The training loop, the same for every task: seeded, clipped, stopped early, resumable after an interruption."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from conveyor.training.recipe import Training

__all__ = ["Objective", "Outcome", "run"]

ModelT_contra = TypeVar("ModelT_contra", bound=nn.Module, contravariant=True)
ModelT = TypeVar("ModelT", bound=nn.Module)
BatchT = TypeVar("BatchT")


class Objective(Protocol[ModelT_contra, BatchT]):
    """What a task teaches: its batches, their loss, and the score that counts."""

    def num_batches(self) -> int:
        """About how many batches an epoch has: for the progress bar and the schedule of the learning rate."""

    def epoch(self, rng: np.random.Generator) -> Iterable[BatchT]:
        """The batches of one epoch; the same state of `rng` gives the same batches."""

    def loss(self, model: ModelT_contra, batch: BatchT) -> Tensor:
        """The loss of a batch, a scalar with a gradient."""

    def measure(self, model: ModelT_contra) -> Mapping[str, float]:
        """Measures on the development part; `score` among them, the higher the better, decides."""

    def calibrate(self, model: ModelT_contra) -> None:
        """Changes the model's head so that on the development part its probabilities or intervals mean what they say.
        What it answers stays the same, unless the recipe asks for more."""


@dataclass(slots=True)
class Outcome:
    """What a training came to: the measures of its best epoch, that epoch (from 1), and its seconds of work."""

    epoch: int
    measures: Mapping[str, float]
    seconds: float
    history: list[Mapping[str, float]] = field(default_factory=list)


def run(
    model: ModelT,
    objective: Objective[ModelT, BatchT],
    training: Training,
    checkpoint: Path,
    *,
    resume: bool = True,
    progress: bool = False,
) -> Outcome:
    """Trains until the development score has not improved for `patience` epochs, and leaves the best weights in
    `model`.

    Every epoch draws its random numbers from a stream of its own, seeded by the recipe's seed and the epoch, and ends
    in a checkpoint; so a training that was interrupted and resumed ends in the same weights as one that was not.

    Args:
        model: Its weights are the start, and at the end the best ones (the running average if the recipe asks for it).
        objective: Where batches, loss and score come from.
        training: The recipe's part.
        checkpoint: File that holds the state after the last whole epoch; written atomically.
        resume: Go on from the checkpoint if there is one. Otherwise it is overwritten.
        progress: Show a bar with the loss and the steps per second.
    """
    return _Run(model, objective, training, checkpoint, progress).to_the_end(resume)


class _Run(Generic[ModelT, BatchT]):
    def __init__(
        self,
        model: ModelT,
        objective: Objective[ModelT, BatchT],
        training: Training,
        checkpoint: Path,
        progress: bool,
    ) -> None:
        self._model, self._objective, self._training = model, objective, training
        self._checkpoint, self._progress = checkpoint, progress
        optimizer = torch.optim.AdamW if training.optimizer == "adamw" else torch.optim.Adam
        # not fused is not the same as None, which lets torch choose
        self._optimizer = optimizer(
            model.parameters(),
            training.learning_rate,
            weight_decay=training.weight_decay,
            fused=True if training.fused else None,
        )
        # with averaging the development score is taken of the averages, and they are what is kept
        self._average = copy.deepcopy(model) if training.averaging else model
        self._best_weights = copy.deepcopy(model.state_dict())
        self._outcome = Outcome(epoch=0, measures={"score": -math.inf}, seconds=0.0)
        self._device_type = next(model.parameters()).device.type
        self._num_batches = objective.num_batches()  # counted once: of many texts it takes longer than a step
        self._epoch = 0
        self._step = 0

    def to_the_end(self, resume: bool) -> Outcome:
        if resume and self._checkpoint.exists():
            self._restore()
        training, outcome = self._training, self._outcome
        last = training.epochs if training.stop_after is None else min(training.epochs, training.stop_after)
        while self._epoch < last and self._epoch - outcome.epoch < training.patience:
            began = time.monotonic()
            self._train_epoch()
            self._epoch += 1
            self._average.eval()
            with torch.no_grad():
                measures = dict(self._objective.measure(self._average))
            outcome.seconds += time.monotonic() - began
            outcome.history.append(measures)
            if measures["score"] > outcome.measures["score"]:
                outcome.epoch, outcome.measures = self._epoch, measures
                self._best_weights = copy.deepcopy(self._average.state_dict())
            self._save()
            if self._progress:
                text = ", ".join(f"{name} {value:.4f}" for name, value in measures.items())
                tqdm.write(f"epoch {self._epoch}: {text} ({outcome.seconds / 60:.1f} min)")
        self._model.load_state_dict(self._best_weights)
        self._model.eval()
        return outcome

    def _train_epoch(self) -> None:
        seed = np.random.SeedSequence((self._training.seed, self._epoch))
        torch.manual_seed(int(seed.generate_state(1)[0]))  # dropout draws from torch's stream
        self._model.train()
        batches = self._objective.epoch(np.random.default_rng(seed))
        total, title = self._num_batches, f"epoch {self._epoch + 1}"
        with tqdm(batches, title, total, disable=not self._progress, leave=False, mininterval=1.0) as bar:
            for batch in bar:
                loss = self._train_batch(batch)
                bar.set_postfix(loss=f"{loss:.4f}", refresh=False)

    def _train_batch(self, batch: BatchT) -> float:
        for group in self._optimizer.param_groups:
            group["lr"] = self._learning_rate()
        self._optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self._device_type, torch.bfloat16, enabled=self._training.precision == "bfloat16"):
            loss = self._objective.loss(self._model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._model.parameters(), self._training.clip_norm)
        self._optimizer.step()
        self._step += 1
        if self._average is not self._model:
            # a young average follows faster, else it would hold the random start for thousands of steps
            decay = min(self._training.averaging, (1 + self._step) / (10 + self._step))
            with torch.no_grad():
                for mean, weight in zip(self._average.parameters(), self._model.parameters(), strict=True):
                    mean.lerp_(weight, 1 - decay)
        return loss.item()

    def _learning_rate(self) -> float:
        """A function of the number of steps alone, so that a resumed training needs no state for it."""
        training = self._training
        if self._step < training.warmup_steps:
            return training.learning_rate * (self._step + 1) / training.warmup_steps
        if training.schedule == "constant":
            return training.learning_rate
        total = max(1, training.epochs * self._num_batches - training.warmup_steps)
        done = min(1.0, (self._step - training.warmup_steps) / total)
        return training.learning_rate * 0.5 * (1 + math.cos(math.pi * done))

    def _save(self) -> None:
        outcome = self._outcome
        state = {
            "model": self._model.state_dict(),
            "average": self._average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "best_weights": self._best_weights,
            "epoch": self._epoch,
            "step": self._step,
            "best_epoch": outcome.epoch,
            "best_measures": dict(outcome.measures),
            "seconds": outcome.seconds,
            "history": [dict(measures) for measures in outcome.history],
        }
        partial = self._checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self._checkpoint)

    def _restore(self) -> None:
        state = torch.load(self._checkpoint, map_location="cpu", weights_only=True)
        self._model.load_state_dict(state["model"])
        self._average.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._best_weights = state["best_weights"]
        self._epoch, self._step = state["epoch"], state["step"]
        self._outcome.epoch, self._outcome.measures = state["best_epoch"], state["best_measures"]
        self._outcome.seconds, self._outcome.history = state["seconds"], state["history"]
