"""Texts that stand in the training and in the development part alike: learned by heart, they would flatter the score.

Public collections borrow from each other, cut texts short and change their punctuation, so only letters and digits
count, and of these the first ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from conveyor.training.examples import LabelledText, TaggedTokens

__all__ = ["without_repeats"]

TextT = TypeVar("TextT", LabelledText, TaggedTokens)

_COMPARED = 32
# What is shorter is said again by other people: "very good" in two places is no copy.
_SHORTEST = 12


def without_repeats(train: Sequence[TextT], dev: Iterable[TextT], *, short: bool = False) -> list[TextT]:
    """The training examples whose text does not begin as one of the development part.

    Args:
        short: Whether texts of few letters count too, as they should where training holds pieces of longer texts.
    """
    shortest = 1 if short else _SHORTEST
    seen = {_key(example, shortest) for example in dev} - {""}
    return [example for example in train if _key(example, shortest) not in seen]


def _key(example: LabelledText | TaggedTokens, shortest: int) -> str:
    text = example.text if isinstance(example, LabelledText) else example.raw_text
    letters = "".join(character for character in text[: 4 * _COMPARED] if character.isalnum()).lower()
    return letters[:_COMPARED] if len(letters) >= shortest else ""
