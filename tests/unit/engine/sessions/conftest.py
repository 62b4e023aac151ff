"""A forecaster of seeded random weights, and what it says of a whole series."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from conveyor.domain import ModelKey
from conveyor.engine.batching.shapes import Stair
from conveyor.engine.executors.port import Batch
from conveyor.engine.executors.torch_executor import TorchExecutor
from conveyor.features.series import SeriesEncoder
from conveyor.spec import ForecastSpec, package_spec_adapter
from support.packages import FORECAST, write_tiny_package

MODEL = ModelKey("forecast-electricity", "1")

Whole = Callable[[npt.NDArray[np.float64], str], npt.NDArray[np.float64]]


@pytest.fixture(scope="session")
def spec() -> ForecastSpec:
    """Two layers, two features."""
    described = FORECAST.model_dump()
    described["recurrent"] |= {"layers": 2}
    described["series"] |= {"features": ["demand", "heat"], "targets": ["heat"]}
    found = package_spec_adapter.validate_python(described)
    assert isinstance(found, ForecastSpec)
    return found


@pytest.fixture(scope="session")
def package(spec: ForecastSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package on disk."""
    samples = [{"input": {"values": [[1.0, 2.0], [2.0, 3.0]]}}]
    return write_tiny_package(tmp_path_factory.mktemp("models"), spec, samples=samples)


@pytest.fixture(scope="session")
def whole(spec: ForecastSpec, package: Path) -> Whole:
    """What a one-shot call gives for a series: float64 [horizon, targets, 1 + quantiles], in its units."""
    executor, encoder = TorchExecutor("cpu"), SeriesEncoder(spec.series)
    executor.load(MODEL, package)

    def forecast(values: npt.NDArray[np.float64], start: str) -> npt.NDArray[np.float64]:
        encoded = encoder.encode(values, datetime.fromisoformat(start) if start else None)
        lengths = np.array([len(values)], dtype=np.int32)
        result = executor.run(MODEL, Batch(encoded.inputs[None], lengths, [Stair(1, len(values))]))
        return encoder.restore(result.arrays["forecast"][0], encoded.loc[-1], encoded.scale[-1])

    return forecast
