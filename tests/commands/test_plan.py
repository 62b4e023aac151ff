"""`conveyor plan`, run as its users run it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from conveyor.repository.plan_lock import DevicePlan, read_plan_lock
from support.packages import FORECAST, SENTIMENT, TAG, write_tiny_package


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """One command, to its end."""
    command = [sys.executable, "-m", "conveyor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, encoding="utf-8")


def plan_of(directory: Path) -> DevicePlan:
    """The one plan in a package."""
    lock = read_plan_lock(directory)
    assert lock is not None
    (plan,) = lock.devices.values()
    return plan


def test_a_model_is_planned_on_its_samples_and_rows_made_up(tmp_path: Path) -> None:
    """The table is printed, the lock is written, says what was tried, and the package is in order with it."""
    directory = write_tiny_package(tmp_path, SENTIMENT)
    done = run("plan", "sentiment-en", "--models", str(tmp_path), "--device", "cpu", "--margin", "0.02")
    assert 0 == done.returncode, done.stderr

    plan = plan_of(directory)
    assert (3000, "2 samples of the package and 2998 synthetic rows", 0.02) == (plan.rows, plan.data, plan.margin)
    assert f"wrote {directory / 'plan.lock'}: {plan.executor} {plan.precision}" in done.stdout
    assert "torch float32" in done.stdout
    assert 0 == run("check", str(directory), "--device", "cpu").returncode


@pytest.mark.parametrize(
    ("spec", "items"),
    [
        (TAG, ["two ships", ["that", "never", "met"], ""]),
        (FORECAST, [{"values": [1.0, None, 3.0]}, {"values": [2.0, 1.0], "start": "2024-03-01T00:00:00Z"}]),
    ],
    ids=["tag", "forecast"],
)
def test_a_package_is_planned_on_lines_as_infer_takes_them(tmp_path: Path, spec: object, items: list[object]) -> None:
    """The folder of a package does instead of a name."""
    directory = write_tiny_package(tmp_path, spec)
    data = tmp_path / "dev.jsonl"
    data.write_text("".join(json.dumps(item) + "\n" for item in items))
    done = run("plan", str(directory), "--data", str(data), "--device", "cpu")
    assert 0 == done.returncode, done.stderr

    plan = plan_of(directory)
    assert (len(items), f"{len(items)} of the {len(items)} lines of dev.jsonl") == (plan.rows, plan.data)


def test_what_cannot_be_planned_is_told(tmp_path: Path) -> None:
    """No such model, a line that is no item, an empty file: one line of error, and no lock."""
    directory = write_tiny_package(tmp_path, SENTIMENT)
    wrong, empty = tmp_path / "wrong.jsonl", tmp_path / "empty.jsonl"
    wrong.write_text('"a film"\n{"text": "a film"}\n')
    empty.write_text("\n")

    for arguments, expected in (
        (["mood"], "there is no package in 'mood'"),
        (["sentiment-en", "--version", "7"], "nor such a model or version"),
        (["sentiment-en", "--data", str(wrong)], "line 2: a text is accepted here"),
        (["sentiment-en", "--data", str(empty)], "empty.jsonl: holds no line"),
        (["sentiment-en", "--device", "cuda:99"], "CUDA devices"),
    ):
        done = run("plan", "--models", str(tmp_path), *arguments)
        assert 1 == done.returncode
        assert expected in done.stderr
    assert not (directory / "plan.lock").exists()


def test_a_plan_with_which_the_package_would_be_refused_is_not_kept(tmp_path: Path) -> None:
    """Here the samples are wrong to begin with; the lock that was there stays as it was."""
    directory = write_tiny_package(tmp_path, SENTIMENT)
    assert 0 == run("plan", str(directory), "--device", "cpu").returncode
    before = (directory / "plan.lock").read_bytes()
    lines = [json.loads(line) for line in (directory / "samples.jsonl").read_text().splitlines()]
    lines[0]["output"]["score"] = 0.123
    (directory / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    done = run("plan", str(directory), "--device", "cpu")
    assert 1 == done.returncode
    assert "samples.jsonl: line 1: score" in done.stderr
    assert before == (directory / "plan.lock").read_bytes()
