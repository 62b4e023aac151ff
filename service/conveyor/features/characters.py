"""Characters: every code point that is not white space is a token, as segmentation of Chinese wants it."""

from __future__ import annotations

__all__ = ["character_spans"]


def character_spans(text: str) -> list[tuple[int, int]]:
    """Finds the code points of a text that are not white space: code points into the text, half open, in order."""
    return [(index, index + 1) for index, character in enumerate(text) if not character.isspace()]
