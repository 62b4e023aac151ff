"""Connected sockets from process to process."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

__all__ = ["Handover", "hand_over"]


def hand_over(through: socket.socket, given: socket.socket, number: int) -> None:
    """Gives a socket to the process at the other end, and closes it here. Nothing happens if that one is gone.

    Args:
        number: Of the engine at one of its ends; below 256.
    """
    with given:
        try:
            # One byte has to go with a socket.
            socket.send_fds(through, [bytes((number,))], [given.fileno()])
        except OSError:
            # It ended; whoever waits for it notices.
            return


class Handover:
    """Receives sockets on the event loop.

    Args:
        through: The end of a sequenced-packet socket pair that was inherited.
        on_socket: Called with each socket, connected and non-blocking, and the number that came with it.
    """

    def __init__(self, through: socket.socket, on_socket: Callable[[socket.socket, int], None]) -> None:
        self._through = through
        self._on_socket = on_socket
        through.setblocking(False)
        asyncio.get_running_loop().add_reader(through.fileno(), self._receive)

    def _receive(self) -> None:
        try:
            number, descriptors, _, _ = socket.recv_fds(self._through, 1, 1)
        except BlockingIOError:
            return
        if not number:
            asyncio.get_running_loop().remove_reader(self._through.fileno())
            return
        for descriptor in descriptors:
            received = socket.socket(fileno=descriptor)
            received.setblocking(False)
            self._on_socket(received, number[0])
