"""From the text of a token to the text its columns look up.

Different ways to write the same token meet here: compatibility forms of Unicode, typographic quotes and dashes, and
the escapes of the Penn Treebank (`-LRB-`, ``` `` ```, `''`), so that raw and treebank text give the same entries.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

__all__ = ["MAX_TOKEN_CODE_POINTS", "normalise", "shape"]

# Canonical ordering of combining marks is quadratic in CPython, and no entry of a vocabulary is longer.
MAX_TOKEN_CODE_POINTS: Final = 128
_MAX_SHAPE: Final = 10

_TYPOGRAPHY: Final = str.maketrans(
    {
        **dict.fromkeys("“”„‟«»″", '"'),
        **dict.fromkeys("‘’‚‛′`´", "'"),
        **dict.fromkeys("‐‑‒–−", "-"),
        **dict.fromkeys("—―", "--"),
    }
)
_TREEBANK: Final = {
    "''": '"',
    "-LRB-": "(",
    "-RRB-": ")",
    "-LSB-": "[",
    "-RSB-": "]",
    "-LCB-": "{",
    "-RCB-": "}",
    "\\/": "/",
    "\\*": "*",
}
_LONG_RUN: Final = re.compile(r"([^\d])\1{3,}")


def normalise(token: str) -> str:
    """Gives the text by which a token is looked up; case is kept.

    NFKC, ASCII quotes and dashes, treebank escapes undone, white space made one space each, and more than three of
    one character (other than a digit) in a row cut to three. Only the first `MAX_TOKEN_CODE_POINTS` count.
    """
    token = token[:MAX_TOKEN_CODE_POINTS]
    if not (token.isascii() and token.isalnum()):
        # Typography goes first: NFKC would take the acute accent apart into a space and a combining mark.
        token = " ".join(unicodedata.normalize("NFKC", token.translate(_TYPOGRAPHY)).split())
        token = _TREEBANK.get(token.upper(), token)
    return _LONG_RUN.sub(r"\1\1\1", token)


def shape(token: str) -> str:
    """Gives the pattern of letters and digits of a token: `X` upper case, `x` lower case, `w` a letter without case,
    `d` a digit, anything else itself; runs are cut to two and the whole to ten code points (`Brand-2024` → `Xxx-dd`).
    """
    pattern: list[str] = []
    for character in token:
        kind = _kind(character)
        if pattern[-2:] != [kind, kind]:
            pattern.append(kind)
            if len(pattern) == _MAX_SHAPE:
                break
    return "".join(pattern)


def _kind(character: str) -> str:
    if character.isupper():
        return "X"
    if character.islower():
        return "x"
    if character.isdigit():
        return "d"
    return "w" if character.isalpha() else character
