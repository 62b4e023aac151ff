"""The arithmetic of the GPU benchmark."""

from __future__ import annotations

import json

import gpu
import torch
from torch.utils.flop_counter import FlopCounterMode


def test_operations_are_those_of_the_matrix_products() -> None:
    """As torch counts them for the same layers, written as products of one step."""
    for shape in (gpu.Shape(112, 128, 1, 2), gpu.Shape(3, 64, 2, 1), gpu.Shape(5, 32, 3, 2)):
        lstm = torch.nn.LSTM(shape.width, shape.hidden, shape.layers, bidirectional=shape.directions == 2)
        weights = [weight for name, weight in lstm.named_parameters() if name.startswith("weight")]
        with FlopCounterMode(display=False) as counter:
            for weight in weights:
                weight @ torch.randn(weight.shape[1], 1)
        assert counter.get_total_flops() == shape.operations


def test_results_are_json_that_every_reader_takes() -> None:
    """A latency of what was never answered is null."""
    found = gpu.finite({"rate": 1.5, "probes": [{"p99_ms": float("inf")}], "held": True})
    assert {"rate": 1.5, "probes": [{"p99_ms": None}], "held": True} == json.loads(json.dumps(found, allow_nan=False))


def test_a_measurement_takes_the_least_of_its_calls() -> None:
    """At least one that is timed, after those that warm up, however short the time."""
    calls: list[int] = []
    assert 0 <= gpu.best_seconds(lambda: calls.append(1), torch.device("cpu"), 0.0)
    assert len(calls) > 3
