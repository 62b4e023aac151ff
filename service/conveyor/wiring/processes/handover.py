"""Connected sockets from process to process."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

__all__ = ["Handover", "hand_over"]

# One byte has to go with a socket.
_MARK = b"\0"


def hand_over(through: socket.socket, given: socket.socket) -> None:
    """Gives a socket to the process at the other end, and closes it here. Nothing happens if that one is gone."""
    with given:
        try:
            socket.send_fds(through, [_MARK], [given.fileno()])
        except OSError:
            # It ended; whoever waits for it notices.
            return


class Handover:
    """Receives sockets on the event loop.

    Args:
        through: The end of a sequenced-packet socket pair that was inherited.
        on_socket: Called with each socket, connected and non-blocking.
    """

    def __init__(self, through: socket.socket, on_socket: Callable[[socket.socket], None]) -> None:
        self._through = through
        self._on_socket = on_socket
        through.setblocking(False)
        asyncio.get_running_loop().add_reader(through.fileno(), self._receive)

    def _receive(self) -> None:
        try:
            mark, descriptors, _, _ = socket.recv_fds(self._through, len(_MARK), 1)
        except BlockingIOError:
            return
        if not mark:
            asyncio.get_running_loop().remove_reader(self._through.fileno())
            return
        for descriptor in descriptors:
            received = socket.socket(fileno=descriptor)
            received.setblocking(False)
            self._on_socket(received)
