"""gRPC over grpc.aio."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio

from conveyor.bench.client import CLIENT_PREFIX, Answer
from conveyor.bench.load import Load
from conveyor.errors import Code
from conveyor.spec import Task

__all__ = ["GrpcClient"]

_OK = Answer(Code.OK)
_METHODS = {
    "sentiment": "/conveyor.v1.Conveyor/Sentiment",
    "tag": "/conveyor.v1.Conveyor/Tag",
    "forecast": "/conveyor.v1.Conveyor/Forecast",
}
_OPTIONS = (
    # Channels to one address share one connection by default, however many are made.
    ("grpc.use_local_subchannel_pool", 1),
    # Every attempt is counted, none repeated unseen, and none sent through a proxy of the environment.
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", -1),
)
# The server sends this key with every error of its own; gRPC's own errors are without it.
_SERVER_KEY = "x-request-id"


class GrpcClient:
    """Asks the task's method; a connection is a channel."""

    def __init__(self, load: Load, task: Task, deadline_s: float | None) -> None:
        self._deadline_s = deadline_s
        self._channels = [grpc.aio.insecure_channel(load.address, options=_OPTIONS) for _ in range(load.connections)]
        # Without a serializer messages go as the bytes they are, and answers are not parsed.
        self._calls: list[grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]] = [
            channel.unary_unary(_METHODS[task]) for channel in self._channels
        ]

    async def ask(self, payload: bytes, lane: int) -> Answer:
        """See the port."""
        try:
            await self._calls[lane % len(self._calls)](payload, timeout=self._deadline_s)
        except grpc.aio.AioRpcError as error:
            own = any(key == _SERVER_KEY for key, _ in error.trailing_metadata())
            return Answer(f"{'' if own else CLIENT_PREFIX}{error.code().name}", error.details() or "")
        return _OK

    async def close(self) -> None:
        """See the port."""
        await asyncio.gather(*(channel.close() for channel in self._channels))
