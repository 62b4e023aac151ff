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
from conveyor.wiring.core import Core

__all__ = ["Doors"]


@dataclass(frozen=True, slots=True)
class Doors:
    """Every listener, with the address it was given."""

    http: HttpServer
    grpc: GrpcServer
    metrics: HttpServer
    http_address: str
    grpc_address: str
    metrics_address: str

    @classmethod
    async def open(cls, core: Core, settings: ServeSettings) -> Doors:
        """Listens on all ports.

        Raises:
            OSError: A port is taken or the address is not of this machine.
        """
        app = create_app(core.gateway, core.lifecycle, core.metrics, core.limits)
        grpc = GrpcServer(
            core.gateway, core.lifecycle, core.metrics, core.limits, host=settings.host, port=settings.grpc_port
        )
        http_socket = _bind(settings.host, settings.http_port)
        metrics_socket = _bind(settings.host, settings.metrics_port)
        http = HttpServer(app, http_socket)
        metrics = HttpServer(create_metrics_app(core.metrics), metrics_socket)
        try:
            grpc_port = await grpc.start()
        except RuntimeError as error:
            # What grpc raises for every port it can't have.
            raise OSError(f"{_address(settings.host, settings.grpc_port)}: {error}") from error
        await http.start()
        await metrics.start()
        return cls(
            http,
            grpc,
            metrics,
            _address(settings.host, http_socket.getsockname()[1]),
            _address(settings.host, grpc_port),
            _address(settings.host, metrics_socket.getsockname()[1]),
        )

    async def close(self, grace_s: float) -> None:
        """Answers what is in flight on the two doors, then stops; metrics can be scraped until the end."""
        await asyncio.gather(self.http.stop(grace_s), self.grpc.stop(grace_s))
        await self.metrics.stop(1.0)


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"{_address(host, port)}: {error.strerror}") from error
    return listener


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
