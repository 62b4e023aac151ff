"""Networks run here as the engine runs them on a CPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def one_computing_thread() -> Iterator[None]:
    """A matrix product split over threads rounds by how it is split; the engine computes on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
