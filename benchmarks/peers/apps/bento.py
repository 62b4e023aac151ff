"""BentoML with its adaptive batching: `bentoml serve bento:Sentiment`."""

from __future__ import annotations

import os

import bentoml
from served import make_function


@bentoml.service(traffic={"timeout": 30}, workers=int(os.environ["PEER_WORKERS"]))
class Sentiment:
    """Texts of several requests in one call."""

    def __init__(self) -> None:
        self.answer = make_function()

    # The delay is BentoML's latency budget: a request that would wait longer is refused.
    @bentoml.api(
        batchable=True,
        max_batch_size=int(os.environ["PEER_ROWS"]),
        max_latency_ms=int(float(os.environ["PEER_DELAY_MS"])),
    )
    def predict(self, text: list[str]) -> list[dict]:
        """A batch."""
        return [{"label": label, "score": score} for label, score in self.answer(text)]
