"""The read-out of a classifier through the kernel."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from conveyor.engine.executors.kernel.library import Head, Kernel
from conveyor.nn.models import SequenceClassifier

__all__ = ["KernelReadOut"]


class KernelReadOut:
    """`SequenceClassifier.read_out` of a network that pools by `max`.

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

    def __call__(self, outputs: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """`probabilities`: float32 [rows, labels]. outputs: float32 [rows, steps, width]; lengths: int64 [rows]."""
        return self._classify(outputs.contiguous(), lengths.contiguous())

    def of_highest(self, highest: Tensor) -> dict[str, Tensor]:
        """The same from the highest of each output: float32 [rows, width], contiguous."""
        # The highest of one step is that step.
        return self._classify(highest[:, None], None)

    def _classify(self, outputs: Tensor, lengths: Tensor | None) -> dict[str, Tensor]:
        probabilities = torch.empty(len(outputs), self._head.labels)
        self._kernel.classify(self._head, outputs, lengths, probabilities)
        return {"probabilities": probabilities}
