"""What answers on the sockets of the server."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from conveyor.api.rpc.server import GrpcServer
from conveyor.settings import ServeSettings
from conveyor.wiring.core import Core
from conveyor.wiring.listeners import address

__all__ = ["Doors"]

if TYPE_CHECKING:
    from conveyor.api.rest.server import HttpServer


@dataclass(frozen=True, slots=True)
class Doors:
    """Where requests come in.

    http: None in a front end that speaks gRPC alone.
    grpc_port: the port that gRPC was given.
    """

    http: HttpServer | None
    grpc: GrpcServer
    grpc_port: int

    @classmethod
    async def open(
        cls, core: Core, settings: ServeSettings, http_socket: socket.socket | None, grpc_port: int, *, shared: bool
    ) -> Doors:
        """Listens.

        Args:
            http_socket: Where HTTP listens; None to speak gRPC alone.
            shared: Whether other front ends listen on the same gRPC port.

        Raises:
            OSError: A port is taken.
        """
        grpc = GrpcServer(
            core.gateway,
            core.lifecycle,
            core.metrics,
            core.limits,
            host=settings.host,
            port=grpc_port,
            shared=shared,
        )
        try:
            given_port = await grpc.start()
        except RuntimeError as error:
            # What grpc raises for every port it can't have.
            raise OSError(f"{address(settings.host, grpc_port)}: {error}") from error
        if http_socket is None:
            return cls(None, grpc, given_port)
        # Not before: a front end that speaks gRPC alone needs no web framework.
        from conveyor.api.rest.app import create_app
        from conveyor.api.rest.server import HttpServer

        app = create_app(core.gateway, core.lifecycle, core.metrics, core.limits, core.scrape)
        http = HttpServer(app, http_socket, max_message_bytes=core.limits.body_bytes)
        await http.start()
        return cls(http, grpc, given_port)

    async def close(self, grace_s: float) -> None:
        """Answers what is in flight, then stops."""
        stops = [self.grpc.stop(grace_s)]
        if self.http is not None:
            stops.append(self.http.stop(grace_s))
        await asyncio.gather(*stops)
