"""The plan of a package is followed, and where it can't be, the reference runs and says why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import structlog
import torch

from conveyor.domain import ModelKey
from conveyor.engine.batching.shapes import Stair
from conveyor.engine.executors.candidates import CANDIDATES, REFERENCE, Candidate
from conveyor.engine.executors.device_kind import device_kind
from conveyor.engine.executors.planned import open_executor, versions_of
from conveyor.engine.executors.port import Batch
from conveyor.errors import PackageError
from conveyor.nn.models import TaskModel
from conveyor.repository.plan_lock import CandidateFigures, DevicePlan, write_plan
from conveyor.spec import RecurrentSpec
from conveyor.wire.port import PlanReport
from support.packages import SENTIMENT, write_tiny_package
from support.threads import threads_restored as threads_restored

KEY = ModelKey("sentiment-en", "1")
KIND = device_kind(torch.device("cpu"))


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package without a plan."""
    return write_tiny_package(tmp_path, SENTIMENT)


def plan_for(executor: str, precision: str, versions: dict[str, str]) -> DevicePlan:
    """A plan as if it had been measured."""
    return DevicePlan(
        executor=executor,
        precision=precision,
        device="a CPU",
        data="made up",
        rows=1,
        margin=0.01,
        batch_rows=(1,),
        batch_weights=(1.0,),
        versions=versions,
        candidates=(CandidateFigures(executor=executor, precision=precision),),
    )


def twin(executor: str, precision: str, obstacle: str | None = None) -> Candidate:
    """A candidate of another name that computes as the reference does."""
    return replace(REFERENCE, executor=executor, precision=precision, obstacle=lambda _device, _spec: obstacle)


def plan_in_force(package: Path, precision: str, candidates: list[Candidate]) -> PlanReport:
    """How the package is executed."""
    executor = open_executor("cpu", precision, [REFERENCE, *candidates])
    executor.load(KEY, package)
    return executor.plan(KEY)


def test_without_a_lock_the_reference_runs(package: Path) -> None:
    """And the plan in force says that there is none."""
    assert PlanReport("torch", "cpu", "float32", "no plan.lock") == plan_in_force(package, "auto", [])


def test_a_lock_is_followed_on_its_kind_of_device(package: Path) -> None:
    """On this kind its executor runs; a plan for another kind is none for this one."""
    write_plan(package, "cpu-other-abacus", plan_for("torch", "int3", versions_of("torch")))
    assert PlanReport("torch", "cpu", "float32", f"no plan for {KIND} in plan.lock") == plan_in_force(
        package, "auto", [twin("torch", "int3")]
    )
    write_plan(package, KIND, plan_for("torch", "int3", versions_of("torch")))
    assert PlanReport("torch", "cpu", "int3", "plan.lock") == plan_in_force(package, "auto", [twin("torch", "int3")])


def test_a_plan_with_our_kernel_holds_on_cpus_with_more_instructions(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nearest counts, also another vendor's, none for more instructions; a library's holds nowhere else."""
    monkeypatch.setattr("conveyor.engine.executors.planned.device_kind", lambda _: "cpu-intel-avx512_vnni")
    twins = [twin("kernel", "int8"), twin("kernel", "int4"), twin("abacus", "int3"), twin("kernel", "int2")]
    versions = dict(versions_of("kernel"))

    write_plan(package, "cpu-amd-avx512_bf16", plan_for("kernel", "int8", versions))
    assert "no plan for cpu-intel-avx512_vnni in plan.lock" == plan_in_force(package, "auto", twins).source
    write_plan(package, "cpu-amd-avx2", plan_for("kernel", "int4", versions))
    expected = PlanReport("kernel", "cpu", "int4", "plan.lock for cpu-amd-avx2")
    assert expected == plan_in_force(package, "auto", twins)
    write_plan(package, "cpu-intel-avx512f", plan_for("abacus", "int3", {}))
    assert "no plan for cpu-intel-avx512_vnni in plan.lock" == plan_in_force(package, "auto", twins).source
    write_plan(package, "cpu-amd-avx512_vnni", plan_for("kernel", "int2", versions))
    expected = PlanReport("kernel", "cpu", "int2", "plan.lock for cpu-amd-avx512_vnni")
    assert expected == plan_in_force(package, "auto", twins)


@pytest.mark.parametrize(
    ("candidates", "reason"),
    [
        ([], "this server does not know it"),
        ([twin("abacus", "wood", "abacus is not installed")], "abacus is not installed"),
    ],
    ids=["unknown", "not installed"],
)
def test_a_plan_that_cannot_be_followed_falls_back_visibly(
    package: Path, candidates: list[Candidate], reason: str
) -> None:
    """A warning says so, and so does the plan in force."""
    write_plan(package, KIND, plan_for("abacus", "wood", {"abacus": "1"}))
    with structlog.testing.capture_logs() as logs:
        plan = plan_in_force(package, "auto", candidates)

    assert PlanReport("torch", "cpu", "float32", f"plan.lock says abacus wood, but {reason}") == plan
    assert [reason] == [line["reason"] for line in logs if line["log_level"] == "warning"]


@pytest.mark.parametrize("library", ["onnxruntime", "openvino"])
def test_a_missing_library_is_an_obstacle(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The candidate asks whether it is there before it is used."""
    monkeypatch.setattr("conveyor.engine.executors.candidates.find_spec", lambda name: None)
    (candidate,) = [c for c in CANDIDATES if c.executor == library]
    assert f"{library} is not installed" == candidate.obstacle(torch.device("cpu"), RecurrentSpec(hidden=8))


def test_other_versions_than_were_measured_are_told(package: Path) -> None:
    """The plan is followed with a warning."""
    write_plan(package, KIND, plan_for("torch", "int3", {"torch": "0.1"}))
    with structlog.testing.capture_logs() as logs:
        plan = plan_in_force(package, "auto", [twin("torch", "int3")])

    assert "plan.lock" == plan.source
    assert [{"torch": "0.1"}] == [line["measured"] for line in logs if line["log_level"] == "warning"]


def test_auto_float32_takes_the_fastest_that_was_measured_in_float32(package: Path) -> None:
    """Whatever the plan chose; what was refused there or does not run here is not taken, and a plan in float32 is
    followed as it is."""
    twins = [twin(name, "float32") for name in ("kernel", "abacus", "pencil")] + [twin("torch", "int3")]
    twins.append(twin("rod", "float32", "rod is not installed"))
    measured = (
        CandidateFigures(executor="torch", precision="float32", speedup=1.0),
        CandidateFigures(executor="kernel", precision="float32", speedup=2.0),
        CandidateFigures(executor="abacus", precision="float32", speedup=3.0),
        CandidateFigures(executor="pencil", precision="float32", speedup=9.0, refused="labels flip"),
        CandidateFigures(executor="rod", precision="float32", speedup=8.0),
        CandidateFigures(executor="torch", precision="int3", speedup=5.0),
    )
    plan = plan_for("torch", "int3", versions_of("torch")).model_copy(update={"candidates": measured})
    write_plan(package, KIND, plan)
    expected = PlanReport("abacus", "cpu", "float32", "plan.lock, float32 only")
    assert expected == plan_in_force(package, "auto-float32", twins)

    write_plan(package, KIND, plan.model_copy(update={"executor": "kernel", "precision": "float32"}))
    expected = PlanReport("kernel", "cpu", "float32", "plan.lock")
    assert expected == plan_in_force(package, "auto-float32", twins)

    write_plan(package, KIND, plan_for("torch", "int3", versions_of("torch")))
    expected = PlanReport("torch", "cpu", "float32", "plan.lock, float32 only: nothing that runs here was measured")
    assert expected == plan_in_force(package, "auto-float32", twins)


def test_another_cpus_plan_gives_auto_float32_our_kernel_only(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How fast a library is here was not measured there, nor whether it agrees."""
    monkeypatch.setattr("conveyor.engine.executors.planned.device_kind", lambda _: "cpu-intel-avx512_vnni")
    measured = (
        CandidateFigures(executor="kernel", precision="float32", speedup=2.0),
        CandidateFigures(executor="abacus", precision="float32", speedup=3.0),
        CandidateFigures(executor="kernel", precision="int8", speedup=5.0),
    )
    plan = plan_for("kernel", "int8", dict(versions_of("kernel"))).model_copy(update={"candidates": measured})
    write_plan(package, "cpu-amd-avx2", plan)
    expected = PlanReport("kernel", "cpu", "float32", "plan.lock for cpu-amd-avx2, float32 only")
    twins = [twin("kernel", "float32"), twin("abacus", "float32"), twin("kernel", "int8")]
    assert expected == plan_in_force(package, "auto-float32", twins)


def test_float32_forces_the_reference(package: Path) -> None:
    """Whatever the lock says."""
    write_plan(package, KIND, plan_for("torch", "int3", versions_of("torch")))
    plan = plan_in_force(package, "float32", [twin("torch", "int3")])
    assert PlanReport("torch", "cpu", "float32", "--precision float32") == plan


def test_a_precision_is_forced_where_something_has_it(package: Path) -> None:
    """The first candidate that can; a model that none can compute is refused, a device without any too."""
    cannot, can = twin("abacus", "int3", "abacus is not installed"), twin("torch", "int3")
    assert PlanReport("torch", "cpu", "int3", "--precision int3") == plan_in_force(package, "int3", [cannot, can])

    def only_gru(_: torch.device, spec: RecurrentSpec) -> str | None:
        return None if spec.hidden == 1 else "no such layers"

    with pytest.raises(PackageError, match=r"model\.toml: recurrent: can't be computed .* no such layers"):
        plan_in_force(package, "int3", [replace(can, obstacle=only_gru)])
    with pytest.raises(ValueError, match="abacus is not installed"):
        open_executor("cpu", "int3", [REFERENCE, cannot])
    with pytest.raises(ValueError, match="nothing computes in it"):
        open_executor("cpu", "int3", [REFERENCE])


def test_a_lock_of_other_weights_is_refused(package: Path) -> None:
    """Loading names the file and what to do."""
    write_plan(package, KIND, plan_for("torch", "float32", versions_of("torch")))
    other = write_tiny_package(package.parents[1] / "other", SENTIMENT, seed=9)
    (package / "weights.safetensors").write_bytes((other / "weights.safetensors").read_bytes())
    with pytest.raises(PackageError, match=r"plan\.lock: weights_sha256: .*conveyor plan"):
        plan_in_force(package, "auto", [])


def test_what_is_chosen_is_what_computes(package: Path) -> None:
    """The kernels of the chosen candidate run, and its weights are counted."""
    batch = Batch(np.full((2, 4, 1), 3, dtype=np.int32), np.array([4, 2], dtype=np.int32), [Stair(2, 4)])

    def silence(model: TaskModel) -> None:
        for parameter in model.recurrent.parameters():
            parameter.zero_()

    write_plan(package, KIND, plan_for("torch", "int3", versions_of("torch")))
    executor = open_executor("cpu", "auto", [REFERENCE, replace(twin("torch", "int3"), install=silence)])
    executor.load(KEY, package)
    (first, second) = executor.run(KEY, batch).arrays["probabilities"]
    np.testing.assert_array_equal(first, second)
    assert executor.memory_bytes()["weights"] > 0
