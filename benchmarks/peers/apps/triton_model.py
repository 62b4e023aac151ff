"""Triton's Python backend: `model.py` of a model repository."""

from __future__ import annotations

import os
import sys

# The backend's interpreter does not read PYTHONPATH.
sys.path[:0] = os.environ["PEER_PATH"].split(":")

import numpy as np  # noqa: E402
import triton_python_backend_utils as pb  # noqa: E402
from served import make_function  # noqa: E402


class TritonPythonModel:
    """Texts of several requests in one call."""

    def initialize(self, args: dict[str, str]) -> None:  # noqa: ARG002 - the backend's interface
        """In each instance's process."""
        self.answer = make_function()

    def execute(self, requests: list[pb.InferenceRequest]) -> list[pb.InferenceResponse]:
        """A batch, as Triton's dynamic batcher formed it."""
        texts: list[str] = []
        counts = []
        for request in requests:
            items = pb.get_input_tensor_by_name(request, "text").as_numpy().ravel()
            counts.append(len(items))
            texts += [item.decode() for item in items]
        answers = iter(self.answer(texts))
        responses = []
        for count in counts:
            own = [next(answers) for _ in range(count)]
            labels = np.array([[label.encode()] for label, _ in own], dtype=object)
            scores = np.array([[score] for _, score in own], dtype=np.float32)
            responses.append(pb.InferenceResponse([pb.Tensor("label", labels), pb.Tensor("score", scores)]))
        return responses
