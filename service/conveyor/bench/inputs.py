"""The items that are asked about: from a file, or a few of our own."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from conveyor.errors import InvalidArgument
from conveyor.gateway.items import series_item, text_item, text_or_tokens_item
from conveyor.spec import Task

__all__ = ["Item", "is_tokens", "own_items", "read_items"]

# An item as decoded JSON: a text, a list of tokens, or the object of a series.
Item = str | list[str] | dict[str, object]

_TEXTS = (
    "The plot is thin, but the acting carries it.",
    "I want my evening back.",
    "A quiet film about two brothers who repair a boat and say very little to each other until the last scene.",
    "Loud.",
    "Nothing in the first hour prepares you for how funny the second one is, and the songs are better than needed.",
    "It was neither as bad as the reviews said nor as good as its poster.",
)


def own_items(task: Task) -> list[Item]:
    """Returns a few items of different length for a task; series are a week of half hours and shorter."""
    if task != "forecast":
        return list(_TEXTS)
    return [
        {
            "values": [round(5000 + 900 * math.sin(math.tau * step / 48) + step % 7, 2) for step in range(steps)],
            "start": "2024-03-04T00:00:00Z",
            "frequency": "30min",
        }
        for steps in (336, 96, 48)
    ]


def read_items(path: Path, task: Task) -> list[Item]:
    """Reads a file of items: `.jsonl` one JSON value a line, anything else one text a line (empty lines are left out).

    Raises:
        InvalidArgument: The file cannot be read, holds no item, or a line is none; `field` names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{path} cannot be read as UTF-8: {error}", field="input") from error
    numbered = [(f"{path} line {number}", line.rstrip("\r")) for number, line in enumerate(lines, start=1)]
    if path.suffix == ".jsonl":
        items = [_json_item(line, task, field) for field, line in numbered if line.strip()]
    elif task == "forecast":
        raise InvalidArgument("series are read from a .jsonl file", field="input")
    else:
        items = [line for _, line in numbered if line]
    if not items:
        raise InvalidArgument(f"{path} holds no item", field="input")
    return items


def _json_item(line: str, task: Task, field: str) -> Item:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument("a line must hold one JSON value", field=field) from error
    if task == "sentiment":
        return text_item(value, field)
    if task == "tag":
        return text_or_tokens_item(value, field)
    series_item(value, field)
    series: dict[str, object] = value
    return series


def is_tokens(items: Sequence[Item]) -> bool:
    """Tells token lists from texts.

    Raises:
        InvalidArgument: Both are there; a request holds one kind.
    """
    kinds = {isinstance(item, list) for item in items}
    if len(kinds) > 1:
        raise InvalidArgument("a file holds texts or token lists, not both", field="input")
    return kinds.pop()
