from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conveyor.features import words as words_module
from conveyor.features.words import stands_alone, word_spans


def words(text: str) -> list[str]:
    return [text[start:end] for start, end in word_spans(text)]


@pytest.mark.parametrize(
    "split",
    [
        "I do|n't know|, it|'s late|.",
        "They|'re here|; we|'ve won|, she|'d said|.",
        "He can|not and ca|n’t|!",
        "gon|na wan|na got|ta",
        "do|nt stop",
        "The O'Brien twins|' dog|'s bone",
        "a long|-|term anti-war e-mail",
        "Al|-|Rashid",
        "see https://example.org/a?b=c#d|, or www.example.org|.",
        "mail jane.doe@mail.example.com|.",
        "1,234.50 points on 9/11 at 10:30|, 24/7",
        "$|50 or 20|% of the 1980s",
        "call 555-0134 or 212-555-0134",
        "wait|... what|?!",
        "Dr. Who and Mr. J. Smith|, U.S. citizens|, etc.",
        "nice :) bad :-( <3",
        "wow|😀|👩🏽‍🚀|🇳🇿|!",
        "-LRB- a -RRB-",
        "`` quoted ''",
        "either|/|or",
        "(|a|)",
        "cafe\u0301 na\u00efve",
        "<<|x|>>",
        "end|.|Next",
        "10|$",
    ],
)
def test_words_split_as_in_the_treebank(split: str) -> None:
    """`|` marks where a word ends without white space."""
    assert re.split(r"\||\s", split) == words(split.replace("|", ""))


def test_html_tags_are_white_space() -> None:
    """Tags of formatting vanish; other angle brackets stay."""
    assert ["good", ".", "Really", "3", "<", "5"] == words("<p>good.<br /><br>Really</p> 3 < 5")


@pytest.mark.parametrize("text", ["", " ", "\n\t \u3000", "<br />", " <br/> <hr> "])
def test_a_text_without_words_gives_none(text: str) -> None:
    """White space and tags alone give no words."""
    assert [] == word_spans(text)


_hostile = st.text(
    st.sampled_from("aB1 \n.,-/'’`\"@:&<>brhtpw_+=!?…)(\u0301\u200d😀🇳中éß\x00\x1c")
    | st.characters(exclude_categories=["Cs"]),
    max_size=60,
)


@given(_hostile)
def test_words_cover_all_that_is_not_white_space_once(text: str) -> None:
    """Spans ascend, hold something, do not overlap, and leave out white space and tags only."""
    spans = word_spans(text)
    ends = [0, *(end for _, end in spans)]
    assert all(end <= start < stop for end, (start, stop) in zip(ends, spans, strict=False))
    gaps = [text[end:start] for end, start in zip(ends, [*(start for start, _ in spans), len(text)], strict=True)]
    assert "" == "".join(re.sub(r"</?[a-zA-Z1-6]+\s*/?>", "", gap).strip() for gap in gaps)
    assert not any(character.isspace() for start, end in spans for character in text[start:end])


@given(st.text(st.characters(max_codepoint=127), max_size=60))
def test_case_does_not_change_where_words_are(text: str) -> None:
    """The same spans in upper and in lower case."""
    assert word_spans(text.lower()) == word_spans(text.upper())


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        " ",
        '"',
        "'",
        "-",
        "1",
        "<",
        "\u0301",
        "a-",
        "a.",
        "a@",
        "1-",
        "1.",
        "</b",
        "<br ",
        "http://",
        "a'",
        "www.a!",
    ],
)
def test_a_long_hostile_text_is_split(unit: str) -> None:
    """Scanning is linear; a quadratic expression would run into the test's time limit."""
    text = (unit * 200_000)[:200_000]
    spans = word_spans(text)
    assert sum(end - start for start, end in spans) == len(text) - sum(map(str.isspace, text))


@given(
    st.lists(
        st.one_of(
            st.sampled_from(
                ["J.", "U.S.", "e.g.", "x/J.", "<br", "/>", "don't", "can", "not", "'s", ":)", "http:", "5%"]
            ),
            st.text(st.sampled_from("aJé.'-/<>:;)(\u0301nt1&,"), min_size=1, max_size=8),
            st.text(min_size=1, max_size=6),
        ),
        max_size=8,
    ),
    st.sampled_from([" ", "\n", "\u3000", "\t  "]),
)
def test_pieces_that_stand_alone_have_the_words_of_the_text(pieces: list[str], space: str) -> None:
    """Where every piece between white space stands alone, a text has the words of its pieces."""
    text = space.join(pieces)
    if all(stands_alone(piece) for piece in text.split()):
        assert words(text) == [word for piece in text.split() for word in words(piece)]


@pytest.mark.parametrize("piece", ["J.", "(J.", "x/J.", "<br", "/><b>", f"a@{'b' * 63}c."])
def test_pieces_that_need_their_surroundings(piece: str) -> None:
    """An initial and whatever might be a part of a tag do not stand alone."""
    assert not stands_alone(piece)


def test_the_pattern_means_the_same_to_every_python() -> None:
    """Before 3.11.5, which Debian 12 does not have, a possessive group forgets what its inside looked at: `it's` was
    one word there, and packages were refused. So only single characters are possessive."""
    assert re.search(r"\)(?:[*+?]|\{[\d,]+\})\+", words_module._TOKEN.pattern) is None
