"""How a place inside a file is written in a problem: TOML's dotted keys, with indices."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["dotted"]

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def dotted(path: Iterable[str | int]) -> str:
    """Writes a path of keys and indices as `text.columns[0].size`; a key that is not bare is quoted."""
    written = ""
    for part in path:
        if isinstance(part, int):
            written += f"[{part}]"
        else:
            key = part if _BARE_KEY.fullmatch(part) else f'"{part}"'
            written += f".{key}" if written else key
    return written
