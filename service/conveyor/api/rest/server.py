"""An HTTP server that lives inside a process whose signals and event loop belong to somebody else."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from conveyor.api.outcome import stopped
from conveyor.api.rest.protocol import Connection
from conveyor.api.rest.socket_protocol import SocketConnection

__all__ = ["HttpServer"]

# More than requests can wait in the queue, so that the queue is what fills first.
_MAX_CONNECTIONS = 10_000

_MAX_MESSAGE_BYTES = 8 * 2**20

# For answers of requests that the end of the grace cut off.
_LAST_ANSWERS_S = 1.0


class HttpServer:
    """Serves an ASGI application on a socket that is already bound. Used from one event loop.

    The loop is the caller's (`uvloop.new_event_loop` is the fast one), and so are signals and logging.

    Args:
        max_connections: Connections beyond it are answered 429 and closed.
        max_message_bytes: A WebSocket whose client sends more in one message is closed with 1009.
    """

    def __init__(
        self,
        app: ASGIApp,
        sock: socket.socket,
        *,
        max_connections: int = _MAX_CONNECTIONS,
        max_message_bytes: int = _MAX_MESSAGE_BYTES,
    ) -> None:
        config = uvicorn.Config(
            app,
            http=Connection,
            limit_concurrency=max_connections,
            ws=SocketConnection,
            ws_max_size=max_message_bytes,
            # Compression would take a window of memory for each connection, and readings are short.
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
        )
        self._socket = sock
        self._server = _EmbeddedServer(config)
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listens; returns once connections are accepted.

        Raises:
            OSError: The socket can't listen.
        """
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        listening = asyncio.create_task(self._server.listening.wait())
        await asyncio.wait((self._serving, listening), return_when=asyncio.FIRST_COMPLETED)
        if not listening.done():
            listening.cancel()
            await self._serving

    async def stop(self, grace_s: float) -> None:
        """Stops accepting, closes idle connections, and waits until requests in flight are answered.

        Those not answered after `grace_s` seconds (rounded up to whole ones) are cancelled, to which the application
        may still answer. Closes the socket.
        """
        if self._serving is None:
            self._socket.close()
            return
        self._server.config.timeout_graceful_shutdown = math.ceil(grace_s)
        self._server.should_exit = True
        await self._serving
        for connection in list(self._server.server_state.connections):
            if isinstance(connection, Connection):
                connection.end_short(stopped())
        # Two turns, in which those that were ended are read and answered, in tasks where their clients do not read.
        for _ in range(2):
            await asyncio.sleep(0)
        cut_off = list(self._server.server_state.tasks)
        if cut_off:
            await asyncio.wait(cut_off, timeout=_LAST_ANSWERS_S)


class _EmbeddedServer(uvicorn.Server):
    """uvicorn without its claim on the process: no signal handler is set, and the start is announced."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals to the process's one owner."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listens, then announces it."""
        await super().startup(sockets)
        self.listening.set()
