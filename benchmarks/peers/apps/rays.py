"""Ray Serve with `serve.batch`: `python rays.py`."""

from __future__ import annotations

import os
import signal

import ray
from ray import serve
from starlette.requests import Request


@serve.deployment(max_ongoing_requests=256, num_replicas=int(os.environ["PEER_WORKERS"]))
class Sentiment:
    """Texts of several requests in one call."""

    def __init__(self) -> None:
        from served import make_function

        self.answer = make_function()

    @serve.batch(
        max_batch_size=int(os.environ["PEER_ROWS"]),
        batch_wait_timeout_s=float(os.environ["PEER_DELAY_MS"]) / 1000,
    )
    async def predict(self, texts: list[str]) -> list[dict[str, str | float]]:
        """A batch."""
        return [{"label": label, "score": score} for label, score in self.answer(texts)]

    async def __call__(self, request: Request) -> dict[str, str | float]:
        """One request."""
        return await self.predict((await request.json())["text"])


if __name__ == "__main__":
    ray.init(include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PEER_PORT"])})
    serve.run(Sentiment.bind())
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()
