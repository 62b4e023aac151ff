"""The port to a protocol."""

from __future__ import annotations

from typing import NamedTuple, Protocol

__all__ = ["CLIENT_PREFIX", "Answer", "Client"]

CLIENT_PREFIX = "CLIENT_"


class Answer(NamedTuple):
    """How a request ended.

    code: the server's own code; `HTTP_<status>` from something else in between; `CLIENT_…` where none came.
    message: empty for OK.
    """

    code: str
    message: str = ""


class Client(Protocol):
    """Sends requests and waits for the whole answer, on one event loop."""

    async def ask(self, payload: bytes, lane: int) -> Answer:
        """Sends one request.

        No failure is raised, each is an answer; cancelling it gives the request up.

        Args:
            lane: Requests of one lane share a connection, where the protocol lets several do so.
        """

    async def close(self) -> None:
        """Closes every connection."""
