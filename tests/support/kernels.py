"""The kernel in C, in every variant that was compiled and that this CPU runs."""

from __future__ import annotations

import pytest

from conveyor.engine.executors.device_kind import cpu_flags
from conveyor.engine.executors.kernel.build import VARIANTS, Variant, library
from conveyor.engine.executors.kernel.library import Kernel

__all__ = ["kernel"]


@pytest.fixture(params=VARIANTS, ids=lambda variant: variant.name, scope="module")
def kernel(request: pytest.FixtureRequest) -> Kernel:
    """Each variant."""
    variant: Variant = request.param
    if not cpu_flags().issuperset(variant.needs):
        pytest.skip(f"this CPU lacks one of {', '.join(variant.needs)}")
    if not library(variant).is_file():
        pytest.skip("it was not compiled, for want of a compiler that knows it")
    return Kernel(variant)
