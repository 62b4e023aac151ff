"""The port that gives metrics alone."""

from __future__ import annotations

import socket

from conveyor.api.rest.server import HttpServer
from conveyor.api.rest.service import create_metrics_app
from conveyor.telemetry.metrics import Scrape

__all__ = ["open_metrics_door"]


async def open_metrics_door(scrape: Scrape, listener: socket.socket) -> HttpServer:
    """Serves the metrics on a port of their own."""
    server = HttpServer(create_metrics_app(scrape), listener)
    await server.start()
    return server
