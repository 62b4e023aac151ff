"""Memory of a server process over a long run."""

from __future__ import annotations

import random
from pathlib import Path

import httpx
import pytest

from support.server import ServerProcess, start_server

MODELS = Path(__file__).parents[2] / "models"
WORDS = "the film was a slow quiet story of two old friends who never quite said what they meant".split()  # noqa: SIM905


def resident_mib(server: ServerProcess) -> float:
    """Resident memory of the process, read from its own metrics."""
    for line in httpx.get(server.metrics, trust_env=False).text.splitlines():
        if line.startswith("process_resident_memory_bytes "):
            return float(line.split()[1]) / 2**20
    raise AssertionError("the process does not say its memory")


@pytest.mark.slow
def test_memory_stays_flat_over_100_000_texts_of_random_shape() -> None:
    """Shapes come from few buckets and what the library keeps for them is bounded: 80 000 texts more add little."""
    chance = random.Random(1)
    with start_server(MODELS) as server, httpx.Client(base_url=server.http, timeout=120, trust_env=False) as http:
        levels = []
        for _ in range(5):
            for _ in range(400):
                texts = [" ".join(chance.choices(WORDS, k=int(chance.lognormvariate(3, 0.9)))) for _ in range(50)]
                assert 200 == http.post("/v1/sentiment", json={"inputs": texts}).status_code
            levels.append(resident_mib(server))

        assert levels[-1] - levels[0] < 60, levels
