"""LitServe with its dynamic batching: `python lit.py`."""

from __future__ import annotations

import os

import litserve


class Sentiment(litserve.LitAPI):
    """Texts of several requests in one call."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe's interface
        """In each worker process."""
        from served import make_function

        self.answer = make_function()

    def decode_request(self, request: dict[str, str]) -> str:
        """One text."""
        return request["text"]

    def batch(self, inputs: list[str]) -> list[str]:
        """As they are."""
        return list(inputs)

    def predict(self, texts: list[str]) -> list[tuple[str, float]]:
        """A batch."""
        return self.answer(texts)

    def unbatch(self, output: list[tuple[str, float]]) -> list[tuple[str, float]]:
        """As they are."""
        return output

    def encode_response(self, output: tuple[str, float]) -> dict[str, str | float]:
        """One answer."""
        return {"label": output[0], "score": output[1]}


if __name__ == "__main__":
    api = Sentiment(
        max_batch_size=int(os.environ["PEER_ROWS"]), batch_timeout=float(os.environ["PEER_DELAY_MS"]) / 1000
    )
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=int(os.environ["PEER_WORKERS"]))
    server.run(host="127.0.0.1", port=int(os.environ["PEER_PORT"]), log_level="error", generate_client_file=False)
