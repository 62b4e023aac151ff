"""How urgent a caller says its request is."""

from __future__ import annotations

from conveyor.errors import InvalidArgument
from conveyor.wire.messages import NORMAL_PRIORITY, PRIORITIES

__all__ = ["PRIORITY_HEADER", "PRIORITY_NAMES", "priority_of"]

# Also the key of the gRPC metadata, in lower case.
PRIORITY_HEADER = "X-Request-Priority"
PRIORITY_NAMES = ("high", "normal", "low")

_PRIORITIES = dict(zip(PRIORITY_NAMES, PRIORITIES, strict=True))


def priority_of(given: str | None) -> int:
    """One of `wire.messages.PRIORITIES`: what the caller named, or that of everybody.

    Raises:
        InvalidArgument: It is not one of the names.
    """
    if given is None:
        return NORMAL_PRIORITY
    if given not in _PRIORITIES:
        raise InvalidArgument(f"{PRIORITY_HEADER} must be one of {', '.join(PRIORITY_NAMES)}", field=PRIORITY_HEADER)
    return _PRIORITIES[given]
