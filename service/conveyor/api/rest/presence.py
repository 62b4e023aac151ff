"""Whether the client of a connection is still there."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["PRESENCE", "Presence"]

# Where requests find that of their connection: in `scope["state"]`.
PRESENCE = "presence"


class Presence:
    """Tells the request that is being answered that its client has left. One a connection; event loop only.

    ASGI tells it only to a `receive` that somebody awaits, which would take a task for each request.

    on_leave: set by the request while it wants to be told, else None.
    """

    __slots__ = ("has_left", "on_leave")

    def __init__(self) -> None:
        self.has_left = False
        self.on_leave: Callable[[], None] | None = None

    def leave(self) -> None:
        """The connection is lost."""
        self.has_left = True
        on_leave, self.on_leave = self.on_leave, None
        if on_leave is not None:
            on_leave()
