"""A connection between two processes of one machine that carries messages."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import cast

from conveyor.wire.codec import Codec

__all__ = ["Channel"]

_SIZE = struct.Struct("<I")


class Channel(asyncio.Protocol):
    """Sends and receives messages, each as its size in four bytes and itself. Event loop only.

    What is sent and not yet read by the other end stays in memory: senders bound it by what they accept.

    Args:
        on_message: Called with each message.
        on_lost: Called once when the connection is gone, whoever ended it.
    """

    def __init__(self, codec: Codec, on_message: Callable[[object], None], on_lost: Callable[[], None]) -> None:
        self._codec = codec
        self._on_message = on_message
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()

    async def open(self, connected: socket.socket) -> None:
        """Takes over one end of a Unix socket pair."""
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=connected)

    def send(self, message: object) -> None:
        """Sends a message; on a connection that is gone, nothing happens."""
        if self._transport is not None:
            raw = self._codec.encode(message)
            self._transport.writelines((_SIZE.pack(len(raw)), raw))

    def close(self) -> None:
        """Ends the connection once what was sent is written."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop; hands on every message that is complete."""
        received = self._received
        received += data
        start = 0
        while len(received) - start >= _SIZE.size:
            (size,) = _SIZE.unpack_from(received, start)
            end = start + _SIZE.size + size
            if end > len(received):
                break
            self._on_message(self._codec.decode(bytes(received[start + _SIZE.size : end])))
            start = end
        del received[:start]

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  the loop's
        """Called by the event loop."""
        self._transport = None
        self._on_lost()
