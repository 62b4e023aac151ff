"""What JSON calls a value."""

from __future__ import annotations

__all__ = ["kind_of"]


def kind_of(value: object) -> str:
    """Names the JSON kind of a parsed value."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
    return "an object"
