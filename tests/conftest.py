"""What every test may use."""

from __future__ import annotations

import hypothesis
import pytest

# No test asserts on speed, and the machine that runs them may be busy.
hypothesis.settings.register_profile("conveyor", deadline=None)
hypothesis.settings.load_profile("conveyor")


@pytest.fixture
def anyio_backend() -> str:
    """Asynchronous tests run on asyncio, as the server does."""
    return "asyncio"
