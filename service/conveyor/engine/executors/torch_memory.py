"""Torch as the engine uses it: without gradients, and with one way of saying that memory ran out."""

from __future__ import annotations

from types import TracebackType

import torch

from conveyor.engine.executors.port import OutOfDeviceMemory

__all__ = ["inference"]


class inference:  # noqa: N801  a context manager
    """Torch without gradients.

    Raises:
        OutOfDeviceMemory: In place of whatever torch raises for it.
    """

    __slots__ = ("_mode",)

    def __enter__(self) -> None:
        self._mode = torch.inference_mode()
        self._mode.__enter__()

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, _: TracebackType | None) -> None:
        self._mode.__exit__(kind, fault, None)
        # The CPU's allocator has no exception of its own.
        if isinstance(fault, torch.OutOfMemoryError) or (
            isinstance(fault, RuntimeError) and "can't allocate memory" in str(fault)
        ):
            raise OutOfDeviceMemory(str(fault)) from fault
