"""Tags per token to spans of tokens, and back.

Models give any sequence of tags; broken paths are repaired the usual way, as the CoNLL-2000 script `conlleval` reads
them: a tag that continues a span which is not open begins one, and so does a change of type.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal

__all__ = ["WORD", "Scheme", "spans_from_tags", "tags_from_spans"]

Scheme = Literal["plain", "bio", "bmes"]

# The label of spans whose tags carry no type: segmentation.
WORD: Final = "word"


def spans_from_tags(
    tags: Sequence[str], scheme: Scheme, breaks: Sequence[bool] | None = None
) -> list[tuple[int, int, str]]:
    """Reads spans from tags: first token, token after the last, label; in order, without overlap.

    `plain` tags form no spans. Tags of `bmes` without a type (`B`, `M`, `E`, `S`) give the label `word`.

    Args:
        breaks: True where a token cannot join the one before it, as at white space in a text of characters.
    """
    if scheme == "plain":
        return []
    spans: list[tuple[int, int, str]] = []
    start: int | None = None
    label = ""
    ended = False  # the open span's last token closed it (E or S): the next tag cannot continue it
    for index, tag in enumerate(tags):
        position, _, kind = tag.partition("-")
        kind = kind or WORD
        if start is not None:
            continues = position in "IME" and kind == label and not ended
            if not continues or (breaks is not None and breaks[index]):
                spans.append((start, index, label))
                start = None
        if position != "O":
            if start is None:
                start, label = index, kind
            ended = position in "ES"
    if start is not None:
        spans.append((start, len(tags), label))
    return spans


def tags_from_spans(spans: Iterable[tuple[int, int, str]], num_tokens: int, scheme: Scheme) -> list[str]:
    """Writes spans as tags, the inverse of `spans_from_tags`; tokens outside every span get `O`.

    Args:
        spans: First token, token after the last, label; in any order.

    Raises:
        ValueError: A span is empty, lies outside the tokens or overlaps another, or the scheme is `plain`.
    """
    if scheme == "plain":
        raise ValueError("plain tags cannot write spans")
    tags = ["O"] * num_tokens
    for start, end, label in spans:
        if not 0 <= start < end <= num_tokens or any(tag != "O" for tag in tags[start:end]):
            raise ValueError(f"span {start}:{end} is empty, outside of {num_tokens} tokens, or overlaps another")
        if scheme == "bio":
            positions = ["B"] + ["I"] * (end - start - 1)
        else:
            positions = ["S"] if end - start == 1 else ["B"] + ["M"] * (end - start - 2) + ["E"]
        suffix = "" if scheme == "bmes" and label == WORD else f"-{label}"
        tags[start:end] = [position + suffix for position in positions]
    return tags
