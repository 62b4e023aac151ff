"""The standard health service, following the server's phase.

grpcio-health-checking has a servicer too. It is not used because there the first watcher of a service that leaves
takes the others' notifications with it, and because its watches never end, so that stopping waits for all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from conveyor.api.shown import clamp
from conveyor.lifecycle.phase import Lifecycle, Phase

__all__ = ["Health"]


class Health(health_pb2_grpc.HealthServicer):
    """Says SERVING for each of `services` while the server is ready, NOT_SERVING before and after."""

    def __init__(self, services: Collection[str], lifecycle: Lifecycle) -> None:
        self._services = services
        self._lifecycle = lifecycle
        self._changed = asyncio.Event()
        self._closed = False
        lifecycle.watch(lambda _: self._notify())

    async def Check(  # noqa: N802  the name is the protocol's
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> health_pb2.HealthCheckResponse:
        """Answers with the status now; NOT_FOUND for a service that is not one of ours."""
        status = self._status(request.service)
        if status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, clamp(f"there is no service {request.service!r} here"))
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        """Sends the status now and whenever it changes, until the caller leaves or the server stops."""
        sent = None
        while True:
            changed = self._changed
            status = self._status(request.service)
            if status != sent:
                await context.write(health_pb2.HealthCheckResponse(status=status))
                sent = status
            if self._closed:
                return
            await changed.wait()

    def close(self) -> None:
        """Ends every watch."""
        self._closed = True
        self._notify()

    def _status(self, service: str) -> int:
        if service not in self._services:
            return health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        if self._lifecycle.phase is Phase.READY:
            return health_pb2.HealthCheckResponse.SERVING
        return health_pb2.HealthCheckResponse.NOT_SERVING

    def _notify(self) -> None:
        # A new event each time: a watcher holds the one it looked at before, and so misses nothing while it writes.
        self._changed.set()
        self._changed = asyncio.Event()
