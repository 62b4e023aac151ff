"""What a request brings beside its JSON: its headers, its deadline, its bytes, and a client that may leave."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from starlette.types import Receive, Scope

from conveyor.api.deadline import LONGEST_TIMEOUT_S, Lifetime
from conveyor.api.offload import Room
from conveyor.api.rest.presence import PRESENCE, Presence
from conveyor.errors import Cancelled, InvalidArgument, PayloadTooLarge

__all__ = ["Body", "Incoming", "client_left"]

_TIMEOUT_HEADER = "X-Request-Timeout"
_TIMEOUT_KEY = _TIMEOUT_HEADER.lower().encode()


class Incoming:
    """What stands in the head of a request, and whether its client is still there.

    started_s: monotonic seconds of its arrival.
    presence: None where the server does not tell that a client leaves.
    """

    __slots__ = ("_headers", "presence", "request_id", "started_s")

    def __init__(
        self, request_id: str, started_s: float, headers: Mapping[bytes, bytes], presence: Presence | None
    ) -> None:
        self.request_id = request_id
        self.started_s = started_s
        self.presence = presence
        self._headers = headers

    @classmethod
    def of_scope(cls, scope: Scope) -> Incoming:
        """A request as it came through the envelope."""
        state = scope["state"]
        return cls(state["request_id"], state["started_s"], state["headers"], state.get(PRESENCE))

    def header(self, key: bytes) -> str | None:
        """A header's value, of the first if it was sent more than once.

        Args:
            key: Its name in small letters.
        """
        value = self._headers.get(key)
        return None if value is None else value.decode("latin-1")

    def deadline(self, default_timeout_s: float) -> float:
        """Returns the monotonic seconds at which the request's time is up: its caller's choice up to an hour.

        Args:
            default_timeout_s: What a caller gets that does not say when it stops waiting.

        Raises:
            InvalidArgument: The header is not a positive, finite number of seconds.
        """
        given = self.header(_TIMEOUT_KEY)
        if given is None:
            return self.started_s + default_timeout_s
        try:
            timeout_s = float(given)
        except ValueError:
            timeout_s = math.nan
        if not 0 < timeout_s < math.inf:
            raise InvalidArgument(f"{_TIMEOUT_HEADER} must be a number of seconds above 0", field=_TIMEOUT_HEADER)
        return self.started_s + min(timeout_s, LONGEST_TIMEOUT_S)

    def end_with_client(self, lifetime: Lifetime) -> None:
        """Ends the lifetime, which this task is in, with `Cancelled` as soon as the client closes the connection.

        Raises:
            Cancelled: It has left already.
        """
        if self.presence is not None and self.presence.has_left:
            raise client_left()
        self.on_leave(lambda: lifetime.end(client_left()))

    def on_leave(self, tell: Callable[[], None]) -> None:
        """Has it told when the client leaves, if the server tells that."""
        if self.presence is not None:
            # Need not be taken back: what has ended can't be ended, and the next request sets its own.
            self.presence.on_leave = tell


class Body:
    """The bytes of a request's body, in the room that they hold until `release`."""

    __slots__ = ("_limit_bytes", "_room", "_size")

    def __init__(self, limit_bytes: int, room: Room) -> None:
        self._limit_bytes = limit_bytes
        self._room = room
        self._size = 0

    async def read(self, incoming: Incoming, receive: Receive) -> bytes:
        """Returns all of it, and stops reading as soon as it is known to be over the limit.

        Raises:
            PayloadTooLarge: The body is over the limit, by its declared or its actual length.
            QueueFull: There is no room for more bytes now.
            Cancelled: The client went away before the body was complete.
        """
        declared = incoming.header(b"content-length") or ""
        if declared.isdecimal() and int(declared) > self._limit_bytes:
            raise self._too_large()
        chunks: list[bytes] = []
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise client_left()
            chunk: bytes = message.get("body", b"")
            more = message.get("more_body", False)
            if self._size + len(chunk) > self._limit_bytes:
                raise self._too_large()
            self._room.take(len(chunk))
            self._size += len(chunk)
            chunks.append(chunk)
        return b"".join(chunks)

    def release(self) -> None:
        """Gives its room back, whatever became of it."""
        self._room.give_back(self._size)

    def _too_large(self) -> PayloadTooLarge:
        return PayloadTooLarge(f"the body is too large; at most {self._limit_bytes} bytes are accepted")


def client_left() -> Cancelled:
    """The end of a request whose client closed the connection."""
    return Cancelled("the client closed the connection")
