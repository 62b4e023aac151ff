"""A plan is the fastest candidate that answers as the reference does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from conveyor.engine.executors.candidates import CANDIDATES, REFERENCE, Candidate
from conveyor.engine.executors.device_kind import device_kind
from conveyor.engine.planning.planner import LEAST_GAIN, make_plan
from conveyor.engine.planning.speed import BATCH_ROWS, BATCH_WEIGHTS, speedup
from conveyor.engine.planning.synthetic import synthetic_rows
from conveyor.nn.models import TaskModel
from conveyor.nn.recurrent import State
from conveyor.repository.plan_lock import CandidateFigures, DevicePlan
from conveyor.spec import PackageSpec
from support.executors import FakeClock
from support.packages import FORECAST, SEGMENT, SENTIMENT, TAG, write_tiny_package
from support.threads import threads_restored as threads_restored


class Doctored(nn.Module):
    """The reference's kernel with its outputs changed, at a price on a fake clock."""

    def __init__(self, module: nn.RNNBase, change: Callable[[Tensor], Tensor], spend: Callable[[Tensor], None]) -> None:
        super().__init__()
        self._module, self._change, self._spend = module, change, spend

    def forward(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        """As the reference, changed."""
        self._spend(x)
        outputs, after = self._module(x, state)
        return self._change(outputs), after


def doctored(
    clock: FakeClock, name: str, seconds: float, change: Callable[[Tensor], Tensor] = lambda outputs: outputs
) -> Candidate:
    """A candidate that takes some seconds a call."""

    def spend(_: Tensor) -> None:
        clock.now += seconds

    def install(model: TaskModel) -> None:
        stack = model.recurrent
        stack.use(lambda module: Doctored(module, change, spend), stack.fewest_rows)

    return replace(REFERENCE, executor="doctored", precision=name, install=install)


@pytest.fixture
def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., DevicePlan]:
    """Plans a tiny package with candidates that take what they say: the reference a second a call."""
    monkeypatch.setattr("conveyor.engine.planning.planner.versions_of", lambda executor: {executor: "1"})

    def plan(
        make_others: Callable[[FakeClock], list[Candidate]], spec: PackageSpec = SENTIMENT, margin: float = 0.01
    ) -> DevicePlan:
        clock = FakeClock()
        reference = doctored(clock, "reference", 1.0)
        monkeypatch.setattr("conveyor.engine.planning.planner.REFERENCE", reference)
        rows = synthetic_rows(spec.model_copy(), 40, seed=1)
        directory = write_tiny_package(tmp_path / str(len(list(tmp_path.iterdir()))), spec)
        kind, found = make_plan(directory, "cpu", rows, "made up", margin, make_others(clock), clock)
        assert device_kind(torch.device("cpu")) == kind
        return found

    return plan


def figures(plan: DevicePlan, name: str) -> CandidateFigures:
    """What was found about one candidate."""
    (found,) = [one for one in plan.candidates if one.precision == name]
    return found


def test_the_fastest_is_chosen(planned: Callable[..., DevicePlan]) -> None:
    """With its gain against the reference, for each size of batch."""
    plan = planned(lambda clock: [doctored(clock, "slow", 2.0), doctored(clock, "fast", 0.25)])

    assert ("doctored", "fast") == (plan.executor, plan.precision)
    # Both directions are a call each, and cuts do not pay where steps cost nothing.
    assert tuple(2e6 / rows for rows in BATCH_ROWS) == figures(plan, "reference").row_us
    assert tuple(0.5e6 / rows for rows in BATCH_ROWS) == figures(plan, "fast").row_us
    assert 1.0 == figures(plan, "reference").speedup
    assert figures(plan, "slow").speedup < 1.0 < figures(plan, "fast").speedup
    assert (40, "made up", 0.01) == (plan.rows, plan.data, plan.margin)
    assert "" == figures(plan, "slow").refused


def test_a_gain_that_may_be_noise_does_not_count(planned: Callable[..., DevicePlan]) -> None:
    """The reference stays."""
    plan = planned(lambda clock: [doctored(clock, "same", 1.0 / (1 + (LEAST_GAIN - 1) / 2))])
    assert "reference" == plan.precision


def test_a_label_that_flips_beyond_the_margin_refuses(planned: Callable[..., DevicePlan]) -> None:
    """However fast a candidate is."""
    for spec in (SENTIMENT, TAG, SEGMENT):
        plan = planned(lambda clock: [doctored(clock, "wrong", 0.1, lambda outputs: -outputs)], spec)

        assert "reference" == plan.precision
        assert figures(plan, "wrong").flips > 0
        assert figures(plan, "wrong").refused.endswith("labels differ beyond the margin of 0.01")


def test_a_label_that_flips_within_the_margin_is_counted_and_not_held_against(
    planned: Callable[..., DevicePlan],
) -> None:
    """With a margin that nothing is beyond, it's the tolerance that refuses."""
    plan = planned(lambda clock: [doctored(clock, "wrong", 0.1, lambda outputs: -outputs)], SENTIMENT, 0.999)

    assert 0 == figures(plan, "wrong").flips < figures(plan, "wrong").flips_within
    assert "the tolerance is 0.0001" in figures(plan, "wrong").refused


@pytest.mark.parametrize("spec", [SENTIMENT, FORECAST], ids=lambda spec: spec.name)
def test_leaving_the_tolerance_refuses(planned: Callable[..., DevicePlan], spec: PackageSpec) -> None:
    """A little more than the package promises, without a flip."""
    plan = planned(lambda clock: [doctored(clock, "rough", 0.1, lambda outputs: outputs * 1.05)], spec, 0.999)

    assert "reference" == plan.precision
    assert figures(plan, "rough").largest_difference > 1e-4
    assert "the tolerance is 0.0001" in figures(plan, "rough").refused


def test_values_that_are_not_finite_refuse(planned: Callable[..., DevicePlan]) -> None:
    """They stand in no lock."""
    plan = planned(lambda clock: [doctored(clock, "nan", 0.1, lambda outputs: outputs * torch.nan)], FORECAST)
    assert "" != figures(plan, "nan").refused


def test_rows_that_depend_on_their_company_refuse(planned: Callable[..., DevicePlan]) -> None:
    """By a last bit, far within every tolerance."""

    def mixed(outputs: Tensor) -> Tensor:
        return outputs * (1 + 1e-6 * len(outputs))

    plan = planned(lambda clock: [doctored(clock, "mixed", 0.1, mixed)])
    assert figures(plan, "mixed").refused.startswith("a row depends on its company")


def test_what_cannot_run_here_is_named(planned: Callable[..., DevicePlan]) -> None:
    """A candidate for CPUs that is missing something says what; one for other devices is not mentioned."""

    def others(clock: FakeClock) -> list[Candidate]:
        missing = replace(doctored(clock, "missing", 0.1), obstacle=lambda _device, _spec: "no beads")
        return [missing, replace(doctored(clock, "elsewhere", 0.1), devices=("cuda",))]

    plan = planned(others)
    assert ["reference", "missing"] == [one.precision for one in plan.candidates]
    assert "no beads" == figures(plan, "missing").refused


@pytest.mark.parametrize("spec", [SENTIMENT, TAG, SEGMENT, FORECAST], ids=lambda spec: spec.name)
def test_the_real_candidates_are_measured(tmp_path: Path, spec: PackageSpec) -> None:
    """Each is timed or refused for a reason, and one of those that were timed is chosen."""
    directory = write_tiny_package(tmp_path, spec)
    _, plan = make_plan(directory, "cpu", synthetic_rows(spec, 30, seed=2), "made up", 0.01)

    names = [(candidate.executor, candidate.precision) for candidate in CANDIDATES if "cpu" in candidate.devices]
    assert names == [(one.executor, one.precision) for one in plan.candidates]
    assert all(bool(one.refused) != bool(one.row_us) for one in plan.candidates)
    assert (plan.executor, plan.precision) in [
        (one.executor, one.precision) for one in plan.candidates if not one.refused
    ]


def test_the_speed_of_a_full_batch_counts_twice() -> None:
    """The weighted geometric mean of the gains."""
    assert (1.0, 1.0, 2.0) == BATCH_WEIGHTS
    assert 2.0 == pytest.approx(speedup([8.0, 8.0, 8.0], [4.0, 4.0, 4.0]))
    assert 4.0 ** (2 / 4) == pytest.approx(speedup([8.0, 8.0, 8.0], [8.0, 8.0, 2.0]))


@pytest.mark.parametrize("spec", [SENTIMENT, TAG, FORECAST], ids=lambda spec: spec.name)
def test_rows_made_up_fit_the_model(spec: PackageSpec) -> None:
    """The same seed gives the same rows, of the model's width and dtype, with ids that it has."""
    rows = synthetic_rows(spec, 50, seed=3)

    assert 50 == len(rows)
    assert len({len(row) for row in rows}) > 5
    for left, right in zip(rows, synthetic_rows(spec, 50, seed=3), strict=True):
        np.testing.assert_array_equal(left, right)
    if spec.task == "forecast":
        assert {(spec.series.width, np.dtype(np.float32))} == {(row.shape[1], row.dtype) for row in rows}
    else:
        assert {np.dtype(np.int32)} == {row.dtype for row in rows}
        for row in rows:
            assert (row >= 1).all()
            assert (row < [column.size for column in spec.text.columns]).all()
