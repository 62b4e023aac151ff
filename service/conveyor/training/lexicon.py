"""The list of words that the training data teaches, as `begins` and `ends` columns look it up.

A list made of the texts one trains on knows all their words, of new texts only most; a network that never met a word
the list lacks would believe it blindly. So the training texts are divided into parts, and each is read with a list of
the words of the other parts. Rare ones can be left out at random besides, which makes of known words new ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Final

import numpy as np

from conveyor.features.characters import character_spans
from conveyor.features.lexicon import joined
from conveyor.features.normalise import normalise
from conveyor.spec import WORD_LENGTHS
from conveyor.training.examples import TaggedTokens

__all__ = ["TaughtWords", "num_classes", "teach_words"]

# Parts are runs of texts in the order of their file: what is written on one day shares its names. A newspaper's month
# gives about a day each.
_PARTS: Final = 24
# A string is surely a word if it is one in at least this share of the places where its characters stand together.
_SURE: Final = 0.9
# Words seen at most so often may be left out at random: what is new in other texts is as rare as they are.
_RARE: Final = 3
# A string in one data set: no word of it, a word, or surely a word.
_STATES: Final = 3

_Counts = Counter[str]


@dataclass(frozen=True, slots=True, eq=False)
class TaughtWords:
    """The class of each word.

    words: of all texts.
    parts: what the words outside each part teach; the same words in the same order every time.
    part_of: the part of each training example, in their order.
    rare: words seen a few times at most.
    """

    words: Mapping[str, int]
    parts: Sequence[Mapping[str, int]]
    part_of: Sequence[int]
    rare: frozenset[str]

    def thinned(self, share: float, rng: np.random.Generator) -> list[Mapping[str, int]]:
        """`parts` with a share of the rare words left out of each."""
        if share == 0.0:
            return list(self.parts)
        return [
            {
                word: number
                for (word, number), draw in zip(part.items(), rng.random(len(part)).tolist(), strict=True)
                if draw >= share or word not in self.rare
            }
            for part in self.parts
        ]


def num_classes(num_sources: int) -> int:
    """Classes of words from that many data sets: a state in each, less the one of being no word in any."""
    return int(_STATES**num_sources) - 1


def teach_words(sources: Sequence[Sequence[TaggedTokens]]) -> TaughtWords:
    """Finds the words of two to five characters, and how each data set treats them.

    Args:
        sources: The training examples of each data set. A text that stands there several times counts once.
    """
    examples = list(chain.from_iterable(sources))
    order: dict[str, int] = {}
    for example in examples:
        order.setdefault(example.raw_text, len(order))
    part_of = {text: number * _PARTS // len(order) for text, number in order.items()}
    distinct = [{example.raw_text: example for example in source} for source in sources]
    as_words = [_by_part(part_of, {text: _words(example) for text, example in texts.items()}) for texts in distinct]
    listed = set(chain.from_iterable(counts for source in as_words for counts in source))
    as_strings = [_by_part(part_of, {text: _strings(text, listed) for text in texts}) for texts in distinct]
    whole = _classes(listed, as_words, as_strings, without=None)
    parts = [_classes(listed, as_words, as_strings, without=part) for part in range(_PARTS)]
    seen = _total([_total(source, without=None) for source in as_words], without=None)
    rare = frozenset(word for word, times in seen.items() if times <= _RARE)
    return TaughtWords(whole, parts, [part_of[example.raw_text] for example in examples], rare)


def _by_part(part_of: Mapping[str, int], found: Mapping[str, Sequence[str]]) -> list[_Counts]:
    counts = [Counter[str]() for _ in range(_PARTS)]
    for text, strings in found.items():
        counts[part_of[text]].update(strings)
    return counts


def _words(example: TaggedTokens) -> list[str]:
    words = (_written(token) for token in example.tokens)
    return [word for word in words if len(word) in WORD_LENGTHS and "\0" not in word]


def _strings(text: str, listed: set[str]) -> list[str]:
    """Every place in a text where the characters of a listed word stand together."""
    written = _written(text)
    return [
        string
        for length in WORD_LENGTHS
        for first in range(len(written) - length + 1)
        if (string := written[first : first + length]) in listed
    ]


def _written(text: str) -> str:
    return joined([_normalised(text[start:end]) for start, end in character_spans(text)])


_normalised = lru_cache(maxsize=65_536)(normalise)


def _classes(
    listed: set[str], as_words: list[list[_Counts]], as_strings: list[list[_Counts]], without: int | None
) -> dict[str, int]:
    """The class of each word, from all parts but one."""
    totals = [
        (_total(words, without), _total(strings, without)) for words, strings in zip(as_words, as_strings, strict=True)
    ]
    classes = {}
    for word in sorted(listed):
        number = 0
        for words, strings in reversed(totals):
            state = 0 if not words[word] else 1 if words[word] < _SURE * strings[word] else 2
            number = _STATES * number + state
        if number:
            classes[word] = number
    return classes


def _total(parts: Sequence[_Counts], without: int | None) -> _Counts:
    total: _Counts = Counter()
    for number, counts in enumerate(parts):
        if number != without:
            total.update(counts)
    return total
