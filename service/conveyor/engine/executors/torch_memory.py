"""Torch as the engine uses it: without gradients, and with one way of saying that memory ran out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from conveyor.engine.executors.port import OutOfDeviceMemory

__all__ = ["inference"]


@contextmanager
def inference() -> Iterator[None]:
    """Torch without gradients.

    Raises:
        OutOfDeviceMemory: In place of whatever torch raises for it.
    """
    try:
        with torch.inference_mode():
            yield
    except torch.OutOfMemoryError as error:
        raise OutOfDeviceMemory(str(error)) from error
    except RuntimeError as error:
        # The CPU's allocator has no exception of its own.
        if "can't allocate memory" in str(error):
            raise OutOfDeviceMemory(str(error)) from error
        raise
