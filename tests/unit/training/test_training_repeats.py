"""What stands in the development part is not learned."""

from __future__ import annotations

from conveyor.training.examples import LabelledText, TaggedTokens
from conveyor.training.repeats import without_repeats


def test_a_copy_is_left_out_whatever_its_punctuation_and_end() -> None:
    """Case, marks and what follows after the first letters do not make another text of it."""
    dev = [LabelledText("The room was clean, the staff friendly, and we will come back.", "1")]
    copies = [
        LabelledText("the ROOM was clean!! the staff friendly and we will come", "1"),
        LabelledText("The room was clean; the breakfast was not.", "0"),
    ]
    assert [copies[1]] == without_repeats(copies, dev)


def test_short_texts_are_said_by_many() -> None:
    """A short text that two people wrote is no copy."""
    short = [LabelledText("很好吃！", "1"), LabelledText("", "1")]
    assert short == without_repeats(short, short)


def test_pieces_of_texts_are_compared_however_short() -> None:
    """A phrase that is a whole text of the development part is a copy, where the recipe says so."""
    train = [LabelledText("Cool .", "1"), LabelledText("cool jazz", "1"), LabelledText("...", "0")]
    assert train[1:] == without_repeats(train, [LabelledText("cool", "1"), LabelledText("!", "0")], short=True)


def test_sentences_of_tokens_are_compared_by_their_text() -> None:
    """However they are cut."""
    dev = [TaggedTokens(("我们", "昨天", "从", "上海", "飞到", "了", "北京", "开会"), ("x",) * 8)]
    train = [TaggedTokens(tuple("我们昨天从上海飞到了北京开会"), ("O",) * 14)]
    assert [] == without_repeats(train, dev)
