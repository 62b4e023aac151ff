"""Fixtures for torch's number of threads, which belongs to the whole process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

__all__ = ["one_computing_thread", "threads_restored"]


@pytest.fixture(autouse=True, scope="module")
def one_computing_thread() -> Iterator[None]:
    """A matrix product split over threads rounds by how it is split; the engine computes on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def threads_restored() -> Iterator[None]:
    """Executors set the number of threads."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
