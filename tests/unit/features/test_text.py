from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from conveyor.errors import PackageError
from conveyor.features.text import TextEncoder, count_entries
from conveyor.features.vocabulary import Vocabulary
from conveyor.spec import ColumnSpec, TextSpec

WORDS = TextSpec(
    tokenizer="word",
    columns=(
        ColumnSpec(kind="lower", size=50, dim=2),
        ColumnSpec(kind="prefix", length=1, size=50, dim=2),
        ColumnSpec(kind="suffix", length=2, size=50, dim=2),
        ColumnSpec(kind="shape", size=50, dim=2),
    ),
)
LOWER = TextSpec(tokenizer="word", columns=(ColumnSpec(kind="lower", size=50, dim=2),))
CHARACTERS = TextSpec(
    tokenizer="character",
    columns=(ColumnSpec(kind="token", size=50, dim=2), ColumnSpec(kind="bigram", size=50, dim=2)),
)
SUBWORDS = TextSpec(tokenizer="subword", columns=(ColumnSpec(kind="subword", size=8, dim=2),))
REVIEW = "It wasn't “bad” (really)… Wasn't it?"


def encoder_of(spec: TextSpec, *texts: str) -> TextEncoder:
    return TextEncoder(spec, Vocabulary.build(count_entries(spec, texts), spec.columns))


def write_tokenizer(directory: Path, vocabulary: dict[str, int]) -> None:
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=9)
    (directory / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")


SUBWORD_VOCABULARY = {"[PAD]": 0, "[UNK]": 1, "un": 2, "##kind": 3, "kind": 4, "é": 5}


def test_each_column_looks_up_its_own_entry() -> None:
    """Lower case, first and last code points, shape; what is not in the vocabulary is 1."""
    vocabulary = Vocabulary({"lower": ["cats"], "prefix1": ["C"], "suffix2": ["ts"], "shape": ["Xxx"]})
    encoded = TextEncoder(WORDS, vocabulary).encode("Cats dogs")
    assert [[2, 2, 2, 2], [1, 1, 1, 1]] == encoded.ids.tolist()
    assert np.int32 == encoded.ids.dtype


def test_offsets_are_code_points_of_the_original_text() -> None:
    """Also beyond the basic plane and where normalisation changes lengths."""
    text = "😀 naïve… ﬁne"
    encoded = encoder_of(LOWER, text).encode(text)
    pieces = [text[start:end] for start, end in zip(encoded.starts, encoded.ends, strict=True)]
    assert ["😀", "naïve", "…", "ﬁne"] == pieces
    assert (np.int32, np.int32) == (encoded.starts.dtype, encoded.ends.dtype)


@pytest.mark.parametrize("spec", [WORDS, CHARACTERS])
def test_an_empty_text_gives_zero_steps(spec: TextSpec) -> None:
    """With the right width."""
    for encoded in (encoder_of(spec, "a").encode(" "), encoder_of(spec, "a").encode_tokens([])):
        assert (0, len(spec.columns)) == encoded.ids.shape
        assert ((0,), (0,)) == (encoded.starts.shape, encoded.ends.shape)


def test_raw_and_treebank_text_give_the_same_ids() -> None:
    """Spaces, escapes and quotes of the treebank make no difference."""
    encoder = encoder_of(LOWER, REVIEW)
    raw = encoder.encode(REVIEW)
    treebank = encoder.encode("It was n't `` bad '' -LRB- really -RRB- ... Was n't it ?")
    assert raw.ids.tolist() == treebank.ids.tolist()
    assert 1 not in raw.ids


@given(st.text(st.characters(max_codepoint=127)))
def test_lower_ignores_case(text: str) -> None:
    """A shouted text has the ids of the same text in lower case."""
    encoder = encoder_of(LOWER, text)
    assert encoder.encode(text.lower()).ids.tolist() == encoder.encode(text.upper()).ids.tolist()


@given(st.lists(st.text(max_size=5), max_size=8))
def test_given_tokens_are_kept_one_to_one(tokens: list[str]) -> None:
    """Whatever they hold; offsets are into the tokens joined by one space."""
    encoded = encoder_of(WORDS, "a b").encode_tokens(tokens)
    joined = " ".join(tokens)
    assert (len(tokens), 4) == encoded.ids.shape
    assert tokens == [joined[start:end] for start, end in zip(encoded.starts, encoded.ends, strict=True)]
    assert (encoded.ids > 0).all()


def test_ids_of_a_token_do_not_depend_on_how_it_came() -> None:
    """Given tokens and a text's own tokens are encoded alike, the first time and from the cache."""
    encoder = encoder_of(WORDS, REVIEW)
    first, again = encoder.encode(REVIEW), encoder.encode(REVIEW)
    tokens = [REVIEW[start:end] for start, end in zip(first.starts, first.ends, strict=True)]
    assert first.ids.tolist() == again.ids.tolist()
    assert first.ids.tolist() == encoder.encode_tokens(tokens).ids.tolist()


def test_characters_are_tokens_and_pair_with_the_next() -> None:
    """White space is skipped, full-width forms are ASCII, the last pairs with an end marker."""
    vocabulary = Vocabulary({"token": ["中", "A"], "bigram": ["中 A", "A </s>"]})
    encoded = TextEncoder(CHARACTERS, vocabulary).encode("中 Ａ\n")
    assert [[2, 2], [3, 3]] == encoded.ids.tolist()
    assert ([0, 2], [1, 3]) == (encoded.starts.tolist(), encoded.ends.tolist())


def test_characters_join_with_the_next_two() -> None:
    """End markers stand for what is missing after the last; counting sees the same entries."""
    columns = (ColumnSpec(kind="token", size=50, dim=2), ColumnSpec(kind="trigram", size=50, dim=2))
    spec = TextSpec(tokenizer="character", columns=columns)
    entries = ["中 A B", "A B </s>", "B </s> </s>"]
    encoded = TextEncoder(spec, Vocabulary({"token": ["中"], "trigram": entries})).encode("中 Ａ\nB")
    assert [2, 3, 4] == encoded.ids[:, 1].tolist()
    assert dict.fromkeys(entries, 1) == count_entries(spec, ["中 Ａ\nB"])["trigram"]


LISTED = TextSpec(
    tokenizer="character",
    columns=(
        ColumnSpec(kind="begins", classes=2, size=83, dim=2),
        ColumnSpec(kind="token", size=50, dim=2),
        ColumnSpec(kind="ends", classes=2, size=83, dim=2),
    ),
)


def test_characters_know_which_words_could_begin_and_end_there() -> None:
    """From the classes of the vocabulary, behind the reserved ids; widths and white space make no difference."""
    encoder = TextEncoder(LISTED, Vocabulary({"token": ["中"], "class1": ["中国"], "class2": ["国AB"]}))
    assert [[3, 2, 2], [8, 1, 3], [2, 1, 2], [2, 1, 8]] == encoder.encode("中 国ＡB").ids.tolist()
    assert encoder.encode_ids("中 国ＡB").tolist() == encoder.encode_tokens(list("中国AB")).ids.tolist()
    assert (0, 3) == encoder.encode("").ids.shape


def test_other_words_can_take_the_place_of_the_vocabulary_s() -> None:
    """Its other entries stay."""
    vocabulary = Vocabulary({"token": ["中"], "class1": ["中国"]})
    encoder = TextEncoder(LISTED, vocabulary, {"国人": 2})
    assert [[2, 2, 2], [4, 1, 2], [2, 1, 4]] == encoder.encode("中国人").ids.tolist()


def test_words_of_a_list_are_no_entries_to_count() -> None:
    """They come from what is learned, not from the text."""
    assert {"token"} == set(count_entries(LISTED, ["中国"]))


def test_more_distinct_tokens_than_the_cache_holds_are_encoded() -> None:
    """Forgetting what was cached changes no id."""
    encoder = encoder_of(LOWER, "w1 w70000")
    ids = encoder.encode_tokens([f"w{number}" for number in range(70_001)]).ids[:, 0]
    assert [1, 70_000] == np.flatnonzero(ids > 1).tolist()


def test_count_entries_counts_texts_and_lists_of_tokens() -> None:
    """Entries that normalise alike count together."""
    counts = count_entries(WORDS, ["Go go", ["GO", "Ｇo"]])
    assert {"go": 4} == counts["lower"]
    assert {"G": 3, "g": 1} == counts["prefix1"]
    assert {"中 国": 1, "国 </s>": 1} == count_entries(CHARACTERS, ["中国"])["bigram"]


def test_load_reads_the_vocabulary(tmp_path: Path) -> None:
    """And refuses a directory without one."""
    with pytest.raises(PackageError, match=r"vocab\.txt"):
        TextEncoder.load(LOWER, tmp_path)
    Vocabulary({"lower": ["fine"]}).save(tmp_path)
    assert [[2]] == TextEncoder.load(LOWER, tmp_path).encode("Fine").ids.tolist()


def test_subwords_come_from_the_tokenizer_file(tmp_path: Path) -> None:
    """Its ids and code point offsets; its truncation and padding are not followed."""
    write_tokenizer(tmp_path, SUBWORD_VOCABULARY)
    encoder = TextEncoder.load(SUBWORDS, tmp_path)
    encoded = encoder.encode("é unkind kind")
    assert [[5], [2], [3], [4]] == encoded.ids.tolist()
    assert ([0, 2, 4, 9], [1, 4, 8, 13]) == (encoded.starts.tolist(), encoded.ends.tolist())
    assert (0, 1) == encoder.encode("").ids.shape


def test_a_given_token_has_the_id_of_its_first_subword(tmp_path: Path) -> None:
    """Unknown if it has none."""
    write_tokenizer(tmp_path, SUBWORD_VOCABULARY)
    encoded = TextEncoder.load(SUBWORDS, tmp_path).encode_tokens(["unkind", "", "xyz"])
    assert [[2], [1], [1]] == encoded.ids.tolist()
    assert [0, 7, 8] == encoded.starts.tolist()


@pytest.mark.parametrize(
    ("vocabulary", "words"),
    [
        ({"[UNK]": 0, "[PAD]": 1}, r"\[PAD\]: must have id 0"),
        ({"[PAD]": 0, "a": 1, "[UNK]": 2}, r"\[UNK\]: must have id 1"),
        ({"[PAD]": 0, "[UNK]": 1, "a": 8}, "below 8"),
    ],
)
def test_a_tokenizer_that_does_not_fit_is_refused(tmp_path: Path, vocabulary: dict[str, int], words: str) -> None:
    """Padding and unknown have fixed ids, and every id needs its row in the embedding."""
    write_tokenizer(tmp_path, vocabulary)
    with pytest.raises(PackageError, match=words):
        TextEncoder.load(SUBWORDS, tmp_path)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", json.dumps({"model": 3}).encode()])
def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path, content: bytes) -> None:
    """As a problem of the package, as is a missing one."""
    with pytest.raises(PackageError, match=r"tokenizer\.json: cannot be read"):
        TextEncoder.load(SUBWORDS, tmp_path)
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(PackageError, match=r"tokenizer\.json: is no tokenizer"):
        TextEncoder.load(SUBWORDS, tmp_path)


@pytest.mark.parametrize("spec", [WORDS, LOWER, CHARACTERS], ids=["columns", "lower", "characters"])
@given(text=st.text(st.sampled_from("ab Z.'n t-<br>!?1,:)(好\u3000\n\U0001f600"), max_size=60))
def test_ids_alone_are_those_that_come_with_offsets(spec: TextSpec, text: str) -> None:
    """What a classifier reads is what a tagger would, of any text, alone or among others."""
    encoder = encoder_of(spec, "a b n't 好 <br> 1,1")
    alone, encoded = encoder.encode_ids(text), encoder.encode(text).ids
    lengths, together = encoder.encode_all_ids([text, "a", text])

    assert (alone.dtype, alone.shape) == (encoded.dtype, encoded.shape)
    assert encoded.tolist() == alone.tolist()
    assert [len(alone), 1, len(alone)] == lengths
    assert [*alone.tolist(), *encoder.encode_ids("a").tolist(), *alone.tolist()] == together.tolist()
