"""Health, reflection and the life of the gRPC server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from conveyor.api.rpc.proto.conveyor.v1 import conveyor_pb2 as pb
from conveyor.api.rpc.server import GrpcServer
from conveyor.lifecycle.phase import Lifecycle, Phase

pytestmark = pytest.mark.anyio

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def lifecycle() -> Lifecycle:
    """Starting."""
    return Lifecycle()


@pytest.fixture
async def server(gateway, lifecycle, metrics, limits) -> GrpcServer:
    """Not started."""
    return GrpcServer(gateway, lifecycle, metrics, limits, host="127.0.0.1", port=0)


@pytest.fixture
async def channel(server: GrpcServer) -> AsyncIterator[grpc.aio.Channel]:
    """To the started server."""
    port = await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(0)


@pytest.mark.parametrize("service", ["", "conveyor.v1.Conveyor"])
async def test_health_follows_the_phase(channel, lifecycle, service: str) -> None:
    """SERVING only while requests are accepted."""
    stub = health_pb2_grpc.HealthStub(channel)
    seen = []
    for phase in Phase:
        lifecycle.set(phase)
        seen.append((await stub.Check(health_pb2.HealthCheckRequest(service=service))).status)

    assert [NOT_SERVING, SERVING, NOT_SERVING] == seen


async def test_the_health_of_an_unknown_service_is_not_found(channel: grpc.aio.Channel) -> None:
    """As the health protocol demands."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="other"))

    assert grpc.StatusCode.NOT_FOUND == caught.value.code()


async def test_every_watcher_sees_every_change_though_others_leave(channel, lifecycle, server) -> None:
    """A watch reports the status now, then each change, and ends with the server."""
    stub = health_pb2_grpc.HealthStub(channel)
    leaver, stayer = (stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(2))
    assert NOT_SERVING == (await leaver.read()).status == (await stayer.read()).status
    leaver.cancel()
    lifecycle.set(Phase.READY)
    assert SERVING == (await stayer.read()).status
    lifecycle.set(Phase.DRAINING)
    assert NOT_SERVING == (await stayer.read()).status
    await server.stop(30)

    assert grpc.aio.EOF == await stayer.read()


async def test_reflection_lists_the_service(channel: grpc.aio.Channel) -> None:
    """A client without the .proto can discover the interface and its messages."""
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="conveyor.v1.Conveyor"),
    ]
    stream = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter(requests))
    listed, described = [answer async for answer in stream]

    names = {service.name for service in listed.list_services_response.service}
    assert {"conveyor.v1.Conveyor", "grpc.health.v1.Health"} <= names
    assert pb.DESCRIPTOR.serialized_pb in described.file_descriptor_response.file_descriptor_proto


async def test_a_port_that_is_taken_fails_the_start(gateway, lifecycle, metrics, limits, listening_socket) -> None:
    """Two servers never share a port silently."""
    port = listening_socket.getsockname()[1]
    server = GrpcServer(gateway, lifecycle, metrics, limits, host="127.0.0.1", port=port)

    with pytest.raises(RuntimeError, match="bind"):
        await server.start()


async def test_calls_in_flight_finish_when_it_stops(channel, server, gateway) -> None:
    """Stopping answers what was accepted."""
    method = channel.unary_unary(
        "/conveyor.v1.Conveyor/Sentiment", response_deserializer=pb.SentimentResponse.FromString
    )
    pending = method(pb.SentimentRequest(inputs=["wait"]).SerializeToString())
    await gateway.waiting.wait()
    stopping = asyncio.create_task(server.stop(30))
    await asyncio.sleep(0)
    gateway.released.set()
    answer = await pending
    await stopping

    assert ["wait"] == [result.label for result in answer.results]
