"""What a request brings beside its JSON: its bytes, its deadline, and whether anyone still waits for the answer."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from conveyor.api.deadline import LONGEST_TIMEOUT_S
from conveyor.api.offload import Room
from conveyor.errors import Cancelled, InvalidArgument, PayloadTooLarge

__all__ = ["body_of", "deadline_of", "unless_disconnected"]

ResultT = TypeVar("ResultT")

_TIMEOUT_HEADER = "X-Request-Timeout"


def deadline_of(request: Request, default_timeout_s: float) -> float:
    """Returns the monotonic seconds at which the request's time is up: its caller's choice up to an hour.

    Args:
        default_timeout_s: What a caller gets that does not say when it stops waiting.

    Raises:
        InvalidArgument: The header is not a positive, finite number of seconds.
    """
    started_s: float = request.state.started_s
    given = request.headers.get(_TIMEOUT_HEADER)
    if given is None:
        return started_s + default_timeout_s
    try:
        timeout_s = float(given)
    except ValueError:
        timeout_s = math.nan
    if not 0 < timeout_s < math.inf:
        raise InvalidArgument(f"{_TIMEOUT_HEADER} must be a number of seconds above 0", field=_TIMEOUT_HEADER)
    return started_s + min(timeout_s, LONGEST_TIMEOUT_S)


@asynccontextmanager
async def body_of(request: Request, limit_bytes: int, room: Room) -> AsyncIterator[bytes]:
    """Reads the body, and stops reading as soon as it is known to be over the limit. Holds its room until left.

    Raises:
        PayloadTooLarge: The body is over the limit, by its declared or its actual length.
        QueueFull: There is no room for more bytes now.
        Cancelled: The client went away before the body was complete.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit_bytes:
        raise _too_large(limit_bytes)
    chunks: list[bytes] = []
    size = 0
    try:
        try:
            async for chunk in request.stream():
                if size + len(chunk) > limit_bytes:
                    raise _too_large(limit_bytes)
                room.take(len(chunk))
                size += len(chunk)
                chunks.append(chunk)
        except ClientDisconnect as fault:
            raise Cancelled("the client closed the connection before its body was complete") from fault
        yield b"".join(chunks)
    finally:
        room.give_back(size)


async def unless_disconnected(request: Request, work: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Awaits `work`, and cancels it as soon as the client closes the connection. The body must have been read.

    Raises:
        Cancelled: The client went away first.
    """
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise Cancelled("the client closed the connection")
    finally:
        # Also when this task is cancelled itself. Waited for, so that nothing of the request outlives it.
        working.cancel()
        leaving.cancel()
        await asyncio.wait((working, leaving))


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _too_large(limit_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"the body is too large; at most {limit_bytes} bytes are accepted")
