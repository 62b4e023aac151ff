"""The compiled kernel, as it is called."""

from __future__ import annotations

import ctypes
from functools import cache

import torch
from torch import Tensor

from conveyor.engine.executors.device_kind import cpu_flags
from conveyor.engine.executors.kernel.build import VARIANTS, Variant, library

__all__ = ["PRECISIONS", "Direction", "Head", "Kernel", "Matrix", "find_kernel"]

# As `enum precision` of products.h counts them.
PRECISIONS = (torch.float32, torch.bfloat16, torch.int8)


class Matrix(ctypes.Structure):
    """`struct matrix` of products.h."""

    _fields_ = (
        ("precision", ctypes.c_int64),
        ("inputs", ctypes.c_int64),
        ("weights", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("offsets", ctypes.c_void_p),
    )


class Direction(ctypes.Structure):
    """`struct direction` of lstm.c."""

    _fields_ = (
        ("hidden", ctypes.c_int64),
        ("blocks", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("recurrent", Matrix),
        ("input", Matrix),
        ("bias", ctypes.c_void_p),
        ("tables", ctypes.POINTER(ctypes.c_void_p)),
        ("half_tables", ctypes.c_int64),
    )


class Head(ctypes.Structure):
    """`struct head` of readout.c."""

    _fields_ = (
        ("width", ctypes.c_int64),
        ("labels", ctypes.c_int64),
        ("weights", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
    )


class Kernel:
    """A compiled variant.

    variant: its name. lanes: units of a block. precisions: in which it multiplies. revision: see lstm.c.
    """

    def __init__(self, variant: Variant) -> None:
        # Calls release the interpreter.
        loaded = ctypes.CDLL(str(library(variant)))
        self.variant = variant.name
        self.lanes: int = loaded.conveyor_lanes()
        self.precisions = [dtype for number, dtype in enumerate(PRECISIONS) if loaded.conveyor_has(number)]
        self.revision: int = loaded.conveyor_revision()
        self._item_bytes = loaded.conveyor_item_bytes
        self._run = loaded.conveyor_lstm
        self._run.argtypes = [
            ctypes.POINTER(Direction),
            ctypes.c_int,
            ctypes.c_void_p,
            ctypes.c_int64,
            ctypes.c_int64,
            *[ctypes.c_void_p] * 4,
            ctypes.c_int64,
            ctypes.c_int,
        ]
        self._classify = loaded.conveyor_classify
        self._classify.argtypes = [ctypes.POINTER(Head), ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p]
        self._classify.restype = None

    def item_dtype(self, precision: torch.dtype) -> torch.dtype:
        """What weights of a precision are kept in: of int8, 16 bits where no instruction sums products of bytes
        exactly."""
        wide = self._item_bytes(PRECISIONS.index(precision)) > precision.itemsize
        return torch.int16 if wide else precision

    def run(
        self,
        direction: Direction,
        x: Tensor,
        lengths: Tensor,
        outputs: Tensor,
        state: tuple[Tensor, Tensor] | None = None,
        *,
        backwards: bool = False,
    ) -> None:
        """Runs a direction; all tensors are contiguous, but `outputs`.

        Args:
            x: int32 ids or float32 [rows, steps, width].
            lengths: int64 [rows], at most `steps` each.
            outputs: float32 [rows, steps, hidden], a slice of the last dimension of a contiguous tensor; is written,
                with zeros past a row's length. Or [rows, hidden], without `state`: then only the highest of each unit
                over a row's own steps is, zeros of a row without steps, NaN if one was.
            state: h and c, float32 [rows, hidden], before; they become those after. Zeros if None.
            backwards: Whether rows are read and written from their own ends.

        Raises:
            torch.OutOfMemoryError: There is no memory.
        """
        rows, steps, _ = x.shape
        pooled = outputs.dim() == 2
        assert state is None or not pooled
        h, c = (part.data_ptr() for part in state) if state else (None, None)
        failed = self._run(
            direction,
            backwards,
            x.data_ptr(),
            rows,
            steps,
            lengths.data_ptr(),
            h,
            c,
            outputs.data_ptr(),
            outputs.stride(-2),
            pooled,
        )
        if failed:
            raise torch.OutOfMemoryError("no memory for the kernel")

    def classify(self, head: Head, highest: Tensor, probabilities: Tensor) -> None:
        """Reads a classifier's labels out; both tensors are contiguous.

        Args:
            highest: float32 [rows, width].
            probabilities: float32 [rows, labels]; is written.
        """
        self._classify(head, highest.data_ptr(), len(highest), probabilities.data_ptr())


@cache
def find_kernel() -> Kernel | None:
    """The best variant that this CPU can run; None if none was compiled."""
    flags = cpu_flags()
    for variant in VARIANTS:
        if flags.issuperset(variant.needs) and library(variant).is_file():
            return Kernel(variant)
    return None
