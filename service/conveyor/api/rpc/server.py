"""The gRPC door."""

from __future__ import annotations

import asyncio

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from conveyor.api.rpc.calls import SERVICE, service_handler
from conveyor.api.rpc.health import Health
from conveyor.api.rpc.running import RunningCalls
from conveyor.gateway.gateway import Gateway
from conveyor.gateway.limits import Limits
from conveyor.lifecycle.phase import Lifecycle, Phase
from conveyor.telemetry.metrics import Metrics

__all__ = ["GrpcServer"]

_HEALTH_SERVICE: str = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

# More than requests can wait in the queue, so that the queue is what fills first.
_MAX_CALLS = 10_000

# In messages of the largest size. gRPC refuses larger ones itself, in its own words, with neither request id nor
# pushback. Up to this size the refusal is ours, with its details.
_MESSAGE_RECEIVED = 2

# For answers of calls that the end of the grace cut off.
_LAST_ANSWERS_S = 1.0


class GrpcServer:
    """Serves `conveyor.v1.Conveyor`, health and reflection on one port. Made and used inside one running event loop.

    Args:
        shared: Whether other processes of this server listen on the same port; the system spreads connections.
        max_calls: Calls at one time, watches included; gRPC answers more with RESOURCE_EXHAUSTED.
    """

    def __init__(
        self,
        gateway: Gateway,
        lifecycle: Lifecycle,
        metrics: Metrics,
        limits: Limits,
        *,
        host: str,
        port: int,
        shared: bool = False,
        max_calls: int = _MAX_CALLS,
    ) -> None:
        self._address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._running = RunningCalls()
        self._server = grpc.aio.server(
            options=(
                # By default two servers may listen on one port and share its calls, without either knowing.
                ("grpc.so_reuseport", int(shared)),
                ("grpc.max_receive_message_length", _MESSAGE_RECEIVED * limits.body_bytes),
                ("grpc.max_send_message_length", -1),
            ),
            maximum_concurrent_rpcs=max_calls,
        )
        lifecycle.watch(lambda phase: self._running.end_streams() if phase is Phase.DRAINING else None)
        self._health = Health(("", SERVICE), lifecycle)
        self._server.add_generic_rpc_handlers((service_handler(gateway, metrics, limits, self._running),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((SERVICE, _HEALTH_SERVICE, reflection.SERVICE_NAME), self._server)

    async def start(self) -> int:
        """Listens and returns the port, which the system chooses if 0 was asked for.

        Raises:
            RuntimeError: The port is taken.
        """
        port = self._server.add_insecure_port(self._address)
        await self._server.start()
        return port

    async def stop(self, grace_s: float) -> None:
        """Refuses new calls, ends watches, and answers UNAVAILABLE to calls not answered after `grace_s` seconds."""
        self._health.close()
        stopping = asyncio.create_task(self._server.stop(grace_s + _LAST_ANSWERS_S))
        await asyncio.wait((stopping,), timeout=grace_s)
        self._running.stop()
        await stopping
