"""The commands beside `serve`, run as their users run them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.packages import FORECAST, SENTIMENT, write_tiny_models, write_tiny_package


def run(*arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    """One command, to its end."""
    command = [sys.executable, "-m", "conveyor", *arguments]
    return subprocess.run(command, input=given, capture_output=True, text=True, timeout=100, encoding="utf-8")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny package of each kind."""
    return write_tiny_models(tmp_path_factory.mktemp("models"))


def test_check_accepts_a_package_in_order(models: Path) -> None:
    """Exit code 0 and one line."""
    done = run("check", str(models / "segment-zh" / "1"))

    assert 0 == done.returncode, done.stderr
    assert "in order" in done.stdout


def test_check_reports_every_problem_by_file_and_field(tmp_path: Path) -> None:
    """Problems of different files stand together, each with its place."""
    package = write_tiny_package(tmp_path, SENTIMENT)
    manifest = package / "model.toml"
    manifest.write_text(manifest.read_text().replace("hidden = 8", "hidden = 16"))
    vocabulary = package / "vocab.txt"
    vocabulary.write_text(vocabulary.read_text() + "upper\tX\n")
    (package / "model.pkl").write_bytes(b"\x80\x04")
    done = run("check", str(package))

    assert 1 == done.returncode
    for place in ("weights.safetensors: recurrent.layers.0.forwards.weight_hh_l0", "vocab.txt: line", "model.pkl"):
        assert place in done.stdout


def test_check_shows_how_far_a_package_is_from_its_samples(tmp_path: Path) -> None:
    """The first difference of each sample, with both values and the tolerance."""
    package = write_tiny_package(tmp_path, FORECAST)
    samples = [json.loads(line) for line in (package / "samples.jsonl").read_text().splitlines()]
    samples[1]["output"]["mean"][2][0] += 1.0
    (package / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    done = run("check", str(package))

    assert 1 == done.returncode
    assert "samples.jsonl: line 2: mean[2][0]: expected" in done.stdout


def test_infer_answers_each_line_in_order_like_the_server(models: Path, tmp_path: Path) -> None:
    """A file in, a file out: the sample of the package gives its stated output; a bad line costs only itself."""
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines = [json.dumps(text) for text in ["a good film", "", "a good film"]]
    source.write_bytes("\n".join([*lines, "3", "{", "9" * 400, "NaN"]).encode() + b'\n"\xff"\n')
    done = run("infer", "sentiment-en", "--models", str(models), "--input", str(source), "--output", str(target))
    results = [json.loads(line) for line in target.read_text().splitlines()]
    sample = json.loads((models / "sentiment-en" / "1" / "samples.jsonl").read_text().splitlines()[0])

    assert 1 == done.returncode
    assert 8 == len(results)
    assert sample["output"]["label"] == results[0]["label"]
    assert sample["output"]["scores"] == pytest.approx(results[0]["scores"], abs=1e-5)
    assert results[0] == results[2]
    assert [f"line {number}" for number in range(4, 9)] == [result["field"] for result in results[3:]]
    assert "5 lines gave an error" in done.stderr


def test_infer_reads_standard_input_for_every_task(models: Path) -> None:
    """Tokens, texts and series are items as in the HTTP body."""
    tagged = run("infer", "pos-en", "--models", str(models), given='["two", "ships"]\n"two ships"\n')
    first, second = (json.loads(line) for line in tagged.stdout.splitlines())
    assert first == second
    forecast = run(
        "infer", "forecast-electricity", "--models", str(models), "--horizon", "2", given='{"values": [1.0, null, 2]}\n'
    )
    result = json.loads(forecast.stdout)
    assert 2 == len(result["mean"])
    assert "timestamps" not in result


def test_infer_names_the_models_there_are(models: Path, tmp_path: Path) -> None:
    """An unknown model is one line of error, and the results of an earlier run stay."""
    kept = tmp_path / "out.jsonl"
    kept.write_text("kept")
    done = run("infer", "nobody", "--models", str(models), "--output", str(kept), given="")

    assert 1 == done.returncode
    assert "nobody" in done.stderr
    assert "kept" == kept.read_text()
    assert "Traceback" not in done.stderr


def test_an_option_out_of_range_names_its_three_spellings() -> None:
    """The error says the setting, the flag and the variable."""
    done = run("serve", "--http-port", "70000")

    assert 2 == done.returncode
    assert "http_port (--http-port, CONVEYOR_HTTP_PORT)" in done.stderr
