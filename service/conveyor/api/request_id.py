"""The id by which a caller and the server's log speak of the same request."""

from __future__ import annotations

import random
import re

__all__ = ["accept_request_id"]

# Printable ASCII only: the id goes into headers and log lines as it is.
_ACCEPTED = re.compile(r"[\x20-\x7e]{1,128}")


def accept_request_id(given: str | None) -> str:
    """Returns the caller's id if it is 1 to 128 printable ASCII characters, else a new one of 32 hex digits."""
    if given is not None and _ACCEPTED.fullmatch(given):
        return given
    # They tell requests apart, and are no secret.
    return f"{random.getrandbits(128):032x}"
