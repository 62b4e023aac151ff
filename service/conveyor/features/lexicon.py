"""Which words of a list could begin and end at each character of a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Final

import numpy as np
import numpy.typing as npt

from conveyor.spec import WORD_LENGTHS

__all__ = ["Lexicon", "joined"]

_NO_PART_OF_A_WORD: Final = "\0"


class Lexicon:
    """Words of two to five characters, each of a class. Immutable.

    Args:
        words: The class of each word, from 1 to `num_classes`; words are written as `joined` writes them.
    """

    def __init__(self, words: Mapping[str, int], num_classes: int) -> None:
        self._words, self._base = words, num_classes + 1

    def codes(self, characters: Sequence[str]) -> npt.NDArray[np.int32]:
        """What begins and what ends at each of some normalised characters.

        A code has a digit to the base of `num_classes` + 1 for each length, the shortest first: the class of the
        string of that length, 0 if it is no word.

        Returns:
            int32 [2, characters], in the order of `WORD_KINDS`.
        """
        text = joined(characters)
        codes = np.zeros((2, len(text)), np.int32)
        unit = 1
        for length in WORD_LENGTHS:
            count = len(text) - length + 1
            if count > 0:
                strings = map("".join, zip(*(text[first:] for first in range(length)), strict=False))
                found = unit * np.array(list(map(self._words.get, strings, repeat(0))), np.int32)
                codes[0, :count] += found
                codes[1, length - 1 :] += found
            unit *= self._base
        return codes


def joined(characters: Sequence[str]) -> str:
    """Normalised characters as one string, a code point each: one that became several is part of no word."""
    return "".join([character if len(character) == 1 else _NO_PART_OF_A_WORD for character in characters])
