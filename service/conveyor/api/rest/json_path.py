"""Where in a JSON text a fault lies, in the notation of error bodies."""

from __future__ import annotations

import re

__all__ = ["path_at", "render_path"]

# A string, even one that is cut off, or one character of structure. Everything between is a number or a literal.
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[{}\[\],:]', re.DOTALL)

_MAX_KEY = 64
_MAX_DEPTH = 6


def path_at(text: bytes, offset: int) -> list[str | int]:
    """Returns keys and indices of the value that holds the byte at `offset`, or begins before it; [] is the whole.

    Reads the text up to `offset` only and expects it to be JSON so far.
    """
    path: list[str | int | None] = []  # one entry per open container; None: an object whose key is not read yet
    for match in _TOKEN.finditer(text, 0, offset):
        token = match.group()
        if token == b"{":
            path.append(None)
        elif token == b"[":
            path.append(0)
        elif token in (b"}", b"]"):
            del path[-1:]
        elif token == b",":
            if path:
                last = path[-1]
                path[-1] = last + 1 if isinstance(last, int) else None
        elif token != b":" and path and path[-1] is None:
            path[-1] = token.strip(b'"').decode(errors="replace")
    return [part for part in path if part is not None]


def render_path(path: list[str | int] | tuple[str | int, ...]) -> str | None:
    """Writes a path as `series[0].values[3]`, None for the whole; long keys and deep paths are cut short."""
    text = ""
    for part in path[:_MAX_DEPTH]:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if len(part) <= _MAX_KEY else part[:_MAX_KEY] + "…")
    return text or None
