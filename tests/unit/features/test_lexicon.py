from __future__ import annotations

from conveyor.features.lexicon import Lexicon, joined


def test_codes_have_a_digit_for_each_length() -> None:
    """To the base of classes + 1, two characters first: what begins at each, and what ends."""
    words = Lexicon({"共同": 1, "共同市场": 2, "市场": 1, "同市": 2}, 2)
    begins, ends = words.codes("共同市场")
    assert [1 + 9 * 2, 2, 1, 0] == begins.tolist()
    assert [0, 1, 2, 1 + 9 * 2] == ends.tolist()


def test_a_word_is_found_wherever_it_stands() -> None:
    """Of the longest length too, at the edges, and where it overlaps itself."""
    begins, ends = Lexicon({"一二三四五": 1, "看看": 1}, 1).codes("看看看一二三四五")
    assert [1, 1, 0, 8, 0, 0, 0, 0] == begins.tolist()
    assert [0, 1, 1, 0, 0, 0, 0, 8] == ends.tolist()


def test_what_became_several_code_points_is_part_of_no_word() -> None:
    """Nor does it join its neighbours, and its place is kept."""
    assert "中\0国" == joined(["中", "--", "国"])
    begins, _ = Lexicon({"中国": 1, "国人": 1}, 1).codes(["中", "--", "国", "人"])
    assert [0, 0, 1, 0] == begins.tolist()


def test_no_characters_have_no_codes() -> None:
    """With the right number of rows."""
    assert (2, 0) == Lexicon({}, 3).codes("").shape
