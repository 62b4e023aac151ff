from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conveyor.features.normalise import MAX_TOKEN_CODE_POINTS, normalise, shape


@pytest.mark.parametrize(
    ("token", "normalised"),
    [
        ("Plain", "Plain"),
        ("“", '"'),
        ("``", '"'),
        ("''", '"'),
        ("n’t", "n't"),
        ("´s", "'s"),
        ("–", "-"),
        ("—", "--"),
        ("…", "..."),
        ("-LRB-", "("),
        ("-rrb-", ")"),
        ("\\/", "/"),
        ("１２ａ", "12a"),
        ("cafe\u0301", "café"),
        ("two words", "two words"),
        ("a\tb\nc", "a b c"),
        ("!!!!!!!!", "!!!"),
        ("coooool", "coool"),
        ("100000", "100000"),
    ],
)
def test_ways_to_write_a_token_meet(token: str, normalised: str) -> None:
    """Compatibility forms, typography, treebank escapes, white space and long runs are written one way."""
    assert normalised == normalise(token)


@given(st.text(max_size=300))
def test_a_normalised_token_can_stand_in_a_vocabulary_file(token: str) -> None:
    """No tab, no line feed, and no white space but single spaces inside."""
    normalised = normalise(token)
    assert normalised.split() == [part for part in normalised.split(" ") if part]
    assert unicodedata.is_normalized("NFKC", normalised)


def test_only_the_first_code_points_of_a_token_count() -> None:
    """What follows the limit changes nothing, so a hostile run of combining marks costs little."""
    marks = "a" + "\u0301\u0316" * 500_000
    assert normalise(marks[:MAX_TOKEN_CODE_POINTS]) == normalise(marks)


@pytest.mark.parametrize(
    ("token", "pattern"),
    [("Hello", "Xxx"), ("USA", "XX"), ("iPod", "xXxx"), ("Brand-2024", "Xxx-dd"), ("中文", "ww"), ("", "")],
)
def test_shape_keeps_the_pattern_of_letters_and_digits(token: str, pattern: str) -> None:
    """Runs are cut to two."""
    assert pattern == shape(token)


@given(st.text())
def test_shape_is_short(token: str) -> None:
    """A shape never has more than ten code points, whatever the token."""
    assert len(shape(token)) <= 10
