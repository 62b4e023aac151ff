"""A gRPC client of the server under test."""

from __future__ import annotations

import grpc

from conveyor.api.rpc.proto.conveyor.v1 import conveyor_pb2 as pb

__all__ = ["Client", "pb"]

_RESPONSES = {
    "Sentiment": pb.SentimentResponse,
    "Tag": pb.TagResponse,
    "Forecast": pb.ForecastResponse,
    "AppendSessions": pb.AppendSessionsResponse,
    "ListModels": pb.ListModelsResponse,
}


class Client:
    """Unary calls of `conveyor.v1.Conveyor`, by name; also with raw bytes that are no message."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.insecure_channel(address)

    def call(self, name: str, request: object, *, timeout: float = 30.0) -> object:
        """The response; raises grpc.RpcError."""
        return self.stub(name)(request, timeout=timeout)

    def stub(self, name: str) -> grpc.UnaryUnaryMultiCallable:
        """The callable of one method."""
        return self.channel.unary_unary(
            f"/conveyor.v1.Conveyor/{name}",
            request_serializer=lambda request: request if isinstance(request, bytes) else request.SerializeToString(),
            response_deserializer=_RESPONSES[name].FromString,
        )

    def close(self) -> None:
        """Closes the channel."""
        self.channel.close()
