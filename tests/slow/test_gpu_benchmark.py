"""`benchmarks/gpu.py` at small size, on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_part_of_the_gpu_benchmark_runs_on_the_cpu(tmp_path: Path) -> None:
    """The tests are collected, both models are computed by torch and by us, and a server is driven."""
    output = tmp_path / "gpu.json"
    command = [sys.executable, "benchmarks/gpu.py", "--device", "cpu", "--small", "--output", str(output)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stderr
    results = json.loads(output.read_text())

    assert (0, 0) == (results["exactness"]["failures"], results["exactness"]["errors"])
    assert results["exactness"]["tests"] > 0
    assert {"float32", "bfloat16"} == set(results["roof_operations_per_s"])
    for model in ("small", "large"):
        for batch in results["engine"][model]["batches"]:
            assert batch["torch"]["rows_per_s"] > 0
            if batch["precision"] == "float32":
                assert batch["ours"]["rows_per_s"] > 0
    (served,) = results["served"]
    assert (1, 50.0) == (served["frontends"], served["limit_ms"])
    assert served["probes"]
