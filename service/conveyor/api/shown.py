"""What of an error's text is shown: enough to understand it, and never so much that it does not fit a header."""

from __future__ import annotations

from typing import Final

__all__ = ["clamp"]

# gRPC refuses 8 KiB of metadata, and carries a message twice, once with up to three bytes for one.
_MAX_BYTES: Final = 1024

_CUT: Final = "…"


def clamp(text: str) -> str:
    """Returns a text of at most 1 KiB of UTF-8, cut between code points and marked where it was cut."""
    raw = text.encode(errors="replace")
    if len(raw) <= _MAX_BYTES:
        return raw.decode()
    return raw[: _MAX_BYTES - len(_CUT.encode())].decode(errors="ignore") + _CUT
