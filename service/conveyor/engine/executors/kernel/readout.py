"""The read-out of a classifier through the kernel."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from conveyor.engine.executors.kernel.library import Head, Kernel
from conveyor.nn.models import SequenceClassifier

__all__ = ["KernelReadOut"]


class KernelReadOut:
    """What a network that pools by `max` makes of what it pooled.

    Args:
        model: In float32 on the CPU, whose weights are copied.
        kernel: What computes.
    """

    def __init__(self, model: SequenceClassifier, kernel: Kernel) -> None:
        weight = model.head.weight.detach()
        self._kernel = kernel
        # The library reads them where they lie; so they are kept.
        self._weight = F.pad(weight, (0, -weight.shape[1] % kernel.lanes)).contiguous()
        self._bias = model.head.bias.detach().clone()
        self._head = Head(weight.shape[1], weight.shape[0], self._weight.data_ptr(), self._bias.data_ptr())

    def __call__(self, highest: Tensor) -> dict[str, Tensor]:
        """`probabilities`: float32 [rows, labels]. highest: float32 [rows, width]."""
        probabilities = torch.empty(len(highest), self._head.labels)
        self._kernel.classify(self._head, highest.contiguous(), probabilities)
        return {"probabilities": probabilities}
