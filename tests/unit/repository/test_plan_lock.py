"""`plan.lock` is read strictly, belongs to its weights, and is written whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from conveyor.errors import PackageError
from conveyor.repository.package import read_package
from conveyor.repository.plan_lock import CandidateFigures, DevicePlan, read_plan_lock, write_plan

Problems = Callable[[], list[str]]
PLAN = DevicePlan(
    executor="onnxruntime",
    precision="float32",
    device="AMD EPYC",
    data="3000 of the 9000 lines of dev.jsonl",
    rows=3000,
    margin=0.01,
    batch_rows=(1, 64),
    batch_weights=(1.0, 2.0),
    versions={"torch": "2.13.0", "onnxruntime": "1.31.1"},
    candidates=(
        CandidateFigures(executor="torch", precision="float32", row_us=(900.5, 200.0), speedup=1.0),
        CandidateFigures(executor="torch", precision="bfloat16", refused='says "no"\nthrice', flips=3),
    ),
)


def test_a_plan_reads_back_as_it_was_written(package: Path) -> None:
    """Every figure of it, in a package that stays in order."""
    assert read_plan_lock(package) is None
    write_plan(package, "cpu-amd-avx512_bf16", PLAN)
    lock = read_plan_lock(package)

    assert lock is not None
    assert {"cpu-amd-avx512_bf16": PLAN} == lock.devices
    read_package(package)
    assert ["1"] == [entry.name for entry in package.parent.iterdir()]


def test_plans_for_other_kinds_stay(package: Path) -> None:
    """A second plan for a kind replaces the first."""
    write_plan(package, "cpu-intel-avx2", PLAN)
    write_plan(package, "cuda-nvidia-h200-sm90", PLAN)
    again = PLAN.model_copy(update={"rows": 7})
    write_plan(package, "cpu-intel-avx2", again)
    lock = read_plan_lock(package)

    assert lock is not None
    assert {"cpu-intel-avx2": again, "cuda-nvidia-h200-sm90": PLAN} == lock.devices


@pytest.mark.parametrize("name", ["weights.safetensors", "model.toml"])
def test_a_lock_belongs_to_its_weights_and_description(package: Path, problems: Problems, name: str) -> None:
    """Beside others it is a problem of the package that says what to do; a new plan replaces it."""
    write_plan(package, "cpu-intel-avx2", PLAN)
    changed = (package / name).read_bytes().replace(b"Says whether", b"Tells if")
    (package / name).write_bytes(changed if name == "model.toml" else changed[:-1] + b"\x01")

    (problem,) = problems()
    assert problem.startswith("plan.lock: ")
    assert f"belongs to another {name}; run `conveyor plan` again, or delete the file" in problem
    write_plan(package, "cpu-amd-avx2", PLAN)
    lock = read_plan_lock(package)
    assert lock is not None
    assert ["cpu-amd-avx2"] == list(lock.devices)


@pytest.mark.parametrize(
    ("expected", "old", "new"),
    [
        ("plan.lock: is not TOML", "rows = 3000", "rows = "),
        ("plan.lock: format_version: 2 is not supported", "format_version = 1", "format_version = 2"),
        ("plan.lock: devices.cpu-intel-avx2.rows: ", "rows = 3000", 'rows = "3000"'),
        ("plan.lock: devices.cpu-intel-avx2.surplus: ", "rows = 3000", "rows = 3000\nsurplus = 1"),
        ("plan.lock: devices.cpu-intel-avx2.candidates[1].flips: ", "flips = 3", "flips = -3"),
        ("plan.lock: devices.cpu-intel-avx2.margin: ", "margin = 0.01", "margin = nan"),
        ("plan.lock: weights_sha256: ", 'weights_sha256 = "', 'weights_sha256 = "x'),
    ],
)
def test_what_is_wrong_is_named_by_its_place(
    package: Path, problems: Problems, expected: str, old: str, new: str
) -> None:
    """Types are strict and unknown keys refused, as in model.toml."""
    write_plan(package, "cpu-intel-avx2", PLAN)
    lock = package / "plan.lock"
    text = lock.read_text()
    assert old in text
    lock.write_text(text.replace(old, new, 1))

    assert any(problem.startswith(expected) for problem in problems())


def test_a_lock_is_a_file_of_the_package_itself(package: Path) -> None:
    """A link is refused, wherever it leads."""
    write_plan(package, "cpu-intel-avx2", PLAN)
    (package / "plan.lock").rename(package.parent / "elsewhere")
    (package / "plan.lock").symlink_to(package.parent / "elsewhere")
    with pytest.raises(PackageError, match="not a regular file"):
        read_plan_lock(package)


def test_what_makes_no_plan_is_not_written(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails leaves the lock that was there, and nothing beside it."""
    write_plan(package, "cpu-intel-avx2", PLAN)
    before = (package / "plan.lock").read_bytes()

    def fail(_: int) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr("conveyor.repository.plan_lock.os.fsync", fail)
    with pytest.raises(OSError, match="full"):
        write_plan(package, "cpu-amd-avx2", PLAN)
    assert before == (package / "plan.lock").read_bytes()
    assert ["1"] == [entry.name for entry in package.parent.iterdir()]
