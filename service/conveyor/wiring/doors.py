"""The sockets of the server and what answers on them."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass

from conveyor.api.rest.app import create_app
from conveyor.api.rest.server import HttpServer
from conveyor.api.rest.service import create_metrics_app
from conveyor.api.rpc.server import GrpcServer
from conveyor.settings import ServeSettings
from conveyor.telemetry.metrics import Scrape
from conveyor.wiring.core import Core

__all__ = ["Doors", "address", "bind", "bind_shared", "open_metrics_door"]


@dataclass(frozen=True, slots=True)
class Doors:
    """Where requests come in.

    grpc_port: the port that gRPC was given.
    """

    http: HttpServer
    grpc: GrpcServer
    grpc_port: int

    @classmethod
    async def open(
        cls, core: Core, settings: ServeSettings, http_socket: socket.socket, grpc_port: int, *, shared: bool
    ) -> Doors:
        """Listens.

        Args:
            shared: Whether other front ends listen on the same gRPC port.

        Raises:
            OSError: A port is taken.
        """
        app = create_app(core.gateway, core.lifecycle, core.metrics, core.limits, core.scrape)
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
        http = HttpServer(app, http_socket)
        await http.start()
        return cls(http, grpc, given_port)

    async def close(self, grace_s: float) -> None:
        """Answers what is in flight, then stops."""
        await asyncio.gather(self.http.stop(grace_s), self.grpc.stop(grace_s))


async def open_metrics_door(scrape: Scrape, listener: socket.socket) -> HttpServer:
    """Serves the metrics on a port of their own."""
    server = HttpServer(create_metrics_app(scrape), listener)
    await server.start()
    return server


def bind(host: str, port: int) -> socket.socket:
    """A socket on an address of this machine, which nobody else can have.

    Raises:
        OSError: The port is taken or the address is not of this machine.
    """
    return _bind(host, port, shared=False)


def bind_shared(host: str, port: int, count: int) -> list[socket.socket]:
    """Sockets on one address; the system spreads connections over those that listen.

    Raises:
        OSError: The port is taken, be it by somebody who would share it, or the address is not of this machine.
    """
    if port:
        # The system would let us join another server of the same user without a word.
        bind(host, port).close()
    first = _bind(host, port, shared=True)
    return [first, *(_bind(host, first.getsockname()[1], shared=True) for _ in range(count - 1))]


def _bind(host: str, port: int, *, shared: bool) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise OSError(error.errno, f"{address(host, port)}: {error.strerror}") from error
    return bound


def address(host: str, port: int) -> str:
    """Host and port as one text."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
