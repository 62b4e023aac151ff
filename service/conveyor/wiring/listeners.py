"""The sockets of the server."""

from __future__ import annotations

import socket

__all__ = ["address", "bind", "bind_shared"]


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
