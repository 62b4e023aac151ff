from __future__ import annotations

import itertools
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conveyor.features.tags import spans_from_tags, tags_from_spans

Spans = list[tuple[int, int, str]]


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ("B-PER I-PER O B-LOC", [(0, 2, "PER"), (3, 4, "LOC")]),
        ("O I-PER I-PER", [(1, 3, "PER")]),
        ("B-PER I-LOC", [(0, 1, "PER"), (1, 2, "LOC")]),
        ("B-PER B-PER", [(0, 1, "PER"), (1, 2, "PER")]),
        ("I-PER B-PER I-PER", [(0, 1, "PER"), (1, 3, "PER")]),
        ("O O", []),
        ("B-A-B I-A-B", [(0, 2, "A-B")]),
    ],
)
def test_bio_is_read_as_conlleval_reads_it(tags: str, spans: Spans) -> None:
    """I without its B, or of another type, begins a span."""
    assert spans == spans_from_tags(tags.split(), "bio")


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ("B E S B M E", [(0, 2, "word"), (2, 3, "word"), (3, 6, "word")]),
        ("B B E", [(0, 1, "word"), (1, 3, "word")]),
        ("B S", [(0, 1, "word"), (1, 2, "word")]),
        ("M E", [(0, 2, "word")]),
        ("E E", [(0, 1, "word"), (1, 2, "word")]),
        ("S M", [(0, 1, "word"), (1, 2, "word")]),
        ("B M", [(0, 2, "word")]),
        ("B-PER M-LOC E-LOC O S-ORG", [(0, 1, "PER"), (1, 3, "LOC"), (4, 5, "ORG")]),
    ],
)
def test_bmes_paths_are_repaired(tags: str, spans: Spans) -> None:
    """A word ends before the next begins, whatever its last tag was; M or E without a word begins one."""
    assert spans == spans_from_tags(tags.split(), "bmes")


def test_a_break_ends_a_span() -> None:
    """White space between characters parts a word, and what follows begins another."""
    assert [(0, 1, "word"), (1, 3, "word")] == spans_from_tags(["B", "M", "E"], "bmes", [False, True, False])


def test_plain_tags_form_no_spans() -> None:
    """Parts of speech are no spans, even if they look like tags of a scheme."""
    assert [] == spans_from_tags(["NOUN", "B-PER"], "plain")


@st.composite
def _spans(draw: st.DrawFn) -> tuple[Spans, int]:
    cuts = sorted(draw(st.sets(st.integers(0, 20), max_size=10)))
    label = st.sampled_from(["PER", "LOC", "word"])
    pieces = [(start, end, draw(label)) for start, end in itertools.pairwise(cuts) if draw(st.booleans())]
    return pieces, 20


@given(_spans(), st.sampled_from(["bio", "bmes"]))
def test_spans_survive_being_written_as_tags(drawn: tuple[Spans, int], scheme: Literal["bio", "bmes"]) -> None:
    """Valid spans, adjacent ones of one type included, come back as they were."""
    spans, num_tokens = drawn
    tags = tags_from_spans(spans, num_tokens, scheme)
    assert num_tokens == len(tags)
    assert spans == spans_from_tags(tags, scheme)


_any_tag = st.sampled_from(["O", *(f"{position}{kind}" for position in "BIMES" for kind in ("", "-A", "-B"))])


@given(st.lists(st.tuples(_any_tag, st.booleans())), st.sampled_from(["bio", "bmes"]))
def test_any_tags_give_sorted_spans_that_cover_what_is_not_o(
    steps: list[tuple[str, bool]], scheme: Literal["bio", "bmes"]
) -> None:
    """No token is in two spans, a token is in none exactly if its tag is O, and no span crosses a break."""
    tags, breaks = [tag for tag, _ in steps], [at for _, at in steps]
    spans = spans_from_tags(tags, scheme, breaks)
    covered = [index for start, end, _ in spans for index in range(start, end)]
    assert [index for index, tag in enumerate(tags) if tag != "O"] == covered
    assert not any(breaks[index] for start, end, _ in spans for index in range(start + 1, end))


@pytest.mark.parametrize("spans", [[(0, 0, "A")], [(0, 4, "A")], [(-1, 1, "A")], [(0, 2, "A"), (1, 3, "A")]])
def test_spans_that_cannot_be_written_are_refused(spans: Spans) -> None:
    """Empty, outside, overlapping."""
    with pytest.raises(ValueError, match="span"):
        tags_from_spans(spans, 3, "bio")


def test_plain_tags_cannot_write_spans() -> None:
    """There is no inverse of nothing."""
    with pytest.raises(ValueError, match="plain"):
        tags_from_spans([], 3, "plain")
