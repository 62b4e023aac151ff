"""The loop: same seed same weights, resumed equals uninterrupted, the best epoch is kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from conveyor.training.loop import Outcome, run
from conveyor.training.recipe import Training


class Interrupted(Exception):
    """Stands for a killed process."""


class LineObjective:
    """Fits y = 3x with noisy batches; measures come from the model or from a script."""

    def __init__(self, scores: list[float] | None = None, fails_in_epoch: int | None = None) -> None:
        self._scores = scores
        self._fails_in_epoch = fails_in_epoch
        self.epochs = 0

    def num_batches(self) -> int:
        return 5

    def epoch(self, rng: np.random.Generator) -> Iterator[Tensor]:
        self.epochs += 1
        for number in range(5):
            if self.epochs == self._fails_in_epoch and number == 3:
                raise Interrupted
            yield torch.from_numpy(rng.standard_normal((8, 1)).astype(np.float32))

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        return ((model(batch) - 3 * batch) ** 2).mean()

    def measure(self, model: nn.Module) -> Mapping[str, float]:
        if self._scores is not None:
            return {"score": self._scores[self.epochs - 1]}
        return {"score": -float(self.loss(model, torch.linspace(-1, 1, 9)[:, None]))}


def training(**changes: object) -> Training:
    settings: dict[str, object] = {"epochs": 6, "patience": 6, "learning_rate": 0.05, "clip_norm": 1.0, "seed": 3}
    return Training.model_validate(settings | changes)


def fit(objective: LineObjective, settings: Training, checkpoint: Path, resume: bool = True) -> tuple[Tensor, Outcome]:
    torch.manual_seed(settings.seed)
    model = nn.Sequential(nn.Linear(1, 4), nn.Dropout(0.2), nn.Linear(4, 1))
    outcome = run(model, objective, settings, checkpoint, resume=resume)
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()]), outcome


@pytest.mark.parametrize("settings", [{}, {"averaging": 0.9, "optimizer": "adam", "warmup_steps": 4}])
def test_the_same_seed_gives_the_same_weights(tmp_path: Path, settings: dict[str, object]) -> None:
    """Bit for bit; another seed gives others."""
    one, _ = fit(LineObjective(), training(**settings), tmp_path / "a.pt")
    two, _ = fit(LineObjective(), training(**settings), tmp_path / "b.pt")
    other, _ = fit(LineObjective(), training(**settings, seed=4), tmp_path / "c.pt")
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("settings", [{}, {"averaging": 0.9, "schedule": "constant"}, {"fused": True}])
def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path: Path, settings: dict[str, object]) -> None:
    """Killed in the fourth epoch and started again, it ends in the same weights, epoch and measures."""
    whole, expected = fit(LineObjective(), training(**settings), tmp_path / "whole.pt")
    with pytest.raises(Interrupted):
        fit(LineObjective(fails_in_epoch=4), training(**settings), tmp_path / "cut.pt")
    rest = LineObjective()
    resumed, outcome = fit(rest, training(**settings), tmp_path / "cut.pt")
    assert 3 == rest.epochs
    assert torch.equal(whole, resumed)
    assert (expected.epoch, expected.measures, expected.history) == (outcome.epoch, outcome.measures, outcome.history)


def test_without_resume_the_training_starts_over(tmp_path: Path) -> None:
    """The checkpoint of a former run has no influence."""
    expected, _ = fit(LineObjective(), training(), tmp_path / "a.pt")
    again = LineObjective()
    found, _ = fit(again, training(), tmp_path / "a.pt", resume=False)
    assert 6 == again.epochs
    assert torch.equal(expected, found)


def test_a_finished_training_resumed_does_no_more(tmp_path: Path) -> None:
    """Its best weights come from the checkpoint."""
    expected, _ = fit(LineObjective(), training(), tmp_path / "a.pt")
    again = LineObjective()
    found, outcome = fit(again, training(), tmp_path / "a.pt")
    assert 0 == again.epochs
    assert 6 == len(outcome.history)
    assert torch.equal(expected, found)


def test_it_stops_when_the_score_no_longer_improves(tmp_path: Path) -> None:
    """Patience counts epochs since the best one, whose weights are kept."""
    scores = [0.1, 0.5, 0.4, 0.5, 0.9, 1.0]
    objective = LineObjective(scores)
    weights, outcome = fit(objective, training(patience=2), tmp_path / "a.pt")
    best, _ = fit(LineObjective(scores[:2]), training(epochs=2, schedule="constant"), tmp_path / "b.pt")
    assert 4 == objective.epochs
    assert (2, 0.5) == (outcome.epoch, outcome.measures["score"])
    assert best.shape == weights.shape
    constant = training(patience=2, schedule="constant")
    assert torch.equal(best, fit(LineObjective(scores), constant, tmp_path / "c.pt")[0])


def test_a_fused_update_is_the_same_update(tmp_path: Path) -> None:
    """But for the last bits."""
    plain, _ = fit(LineObjective(), training(weight_decay=0.1), tmp_path / "plain.pt")
    fused, _ = fit(LineObjective(), training(weight_decay=0.1, fused=True), tmp_path / "fused.pt")
    assert torch.allclose(plain, fused, atol=1e-4)


def test_batches_are_counted_once(tmp_path: Path) -> None:
    """Counting those of many texts takes longer than learning from one."""
    objective = LineObjective()
    counted = []
    count = objective.num_batches
    objective.num_batches = lambda: counted.append(1) or count()  # type: ignore[method-assign,func-returns-value]
    fit(objective, training(), tmp_path / "a.pt")
    assert len(counted) == 1


def test_it_can_end_before_its_schedule(tmp_path: Path) -> None:
    """The learning rate is that of the whole schedule: the weights are those the longer training had then."""
    shorter, outcome = fit(LineObjective(), training(stop_after=2), tmp_path / "a.pt")
    objective = LineObjective([0.1, 0.5, 0.4, 0.4, 0.4, 0.4])
    longer, _ = fit(objective, training(), tmp_path / "b.pt")
    assert (2, 6) == (len(outcome.history), objective.epochs)
    assert torch.equal(longer, shorter)


def test_it_learns(tmp_path: Path) -> None:
    """A few epochs bring the score near its best."""
    _, outcome = fit(LineObjective(), training(epochs=40, patience=40), tmp_path / "a.pt")
    assert outcome.measures["score"] > -0.05


def test_gradients_are_clipped(tmp_path: Path) -> None:
    """Plain numbers as an optimizer's only input: the norm of the gradient it sees is at most `clip_norm`."""
    seen: list[float] = []
    original = torch.optim.AdamW.step

    def spy(self: torch.optim.AdamW, *args: object, **kwargs: object) -> object:
        norms = [p.grad.norm() for group in self.param_groups for p in group["params"] if p.grad is not None]
        seen.append(float(torch.stack(norms).norm()))
        return original(self, *args, **kwargs)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", spy)
        fit(LineObjective(), training(clip_norm=0.01, epochs=1), tmp_path / "a.pt")
    assert len(seen) == 5
    assert max(seen) <= 0.01 * (1 + 1e-4)
