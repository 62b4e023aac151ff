"""What is left of a body that was answered before it was read."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.types import Receive

__all__ = ["drop_rest"]

_MAX_BYTES: Final = 64 * 2**20
_MAX_IDLE_S: Final = 2.0
_MAX_S: Final = 30.0


async def drop_rest(receive: Receive) -> None:
    """Reads and drops the rest of a body, until it ends, pauses for 2 s, has gone on for 30 s or is over 64 MiB.

    A connection that is closed with unread input is reset, and with it an answer that the client has not read yet
    because it sends all of its body first (RFC 9112, section 9.6).
    """
    size = 0
    try:
        async with asyncio.timeout(_MAX_S):
            while size < _MAX_BYTES:
                message = await asyncio.wait_for(receive(), _MAX_IDLE_S)
                size += len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return
