"""A WebSocket connection of the HTTP server: uvicorn's, with the bound on how many there are."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn._types import ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

__all__ = ["SocketConnection"]

_OVERLOADED: Final = 1013

# Its lines at level info show the path, and a path names a session, which is its caller's secret.
_log = logging.getLogger("conveyor.api.websockets")
_log.setLevel(logging.WARNING)


class SocketConnection(WebSocketsSansIOProtocol):
    """Counts with all other connections; those beyond `limit_concurrency` are closed with 1013."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.logger = self.conn.logger = _log

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes a connection over that was one of HTTP until now."""
        super().connection_made(transport)
        most = self.config.limit_concurrency
        if most is not None and len(self.connections) > most:
            self.app = _overloaded

    async def send(self, message: ASGISendEvent) -> None:
        """Sends; and takes an HTTP answer for the end of the handshake, which uvicorn would report as missing."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            self.handshake_complete = True


async def _overloaded(_: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close", "code": _OVERLOADED, "reason": "too many connections; try again later"})
