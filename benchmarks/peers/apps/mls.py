"""MLServer with its adaptive batching; loaded by its `model-settings.json`."""

from __future__ import annotations

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse
from served import make_function


class Sentiment(MLModel):
    """Texts of several requests in one call."""

    async def load(self) -> bool:
        """In each worker process."""
        self.answer = make_function()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """A batch."""
        answers = self.answer(StringCodec.decode_input(payload.inputs[0]))
        labels = StringCodec.encode_output("label", [label for label, _ in answers])
        scores = NumpyCodec.encode_output("score", np.array([[score] for _, score in answers]))
        return InferenceResponse(model_name=self.name, outputs=[labels, scores])
