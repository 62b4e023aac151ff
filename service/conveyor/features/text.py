"""Text to ids: tokens with their offsets, and for each token the id of every column."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, repeat
from pathlib import Path
from typing import Final, Self, TypeVar, cast

import numpy as np
import numpy.typing as npt

from conveyor.features.characters import character_spans
from conveyor.features.lexicon import Lexicon
from conveyor.features.normalise import MAX_TOKEN_CODE_POINTS, normalise, shape
from conveyor.features.subwords import SubwordTokenizer
from conveyor.features.vocabulary import FIRST_ENTRY, UNKNOWN, Vocabulary
from conveyor.features.words import stands_alone, word_spans, words
from conveyor.spec import WORD_KINDS, ColumnSpec, TextSpec

__all__ = ["EncodedText", "TextEncoder", "count_entries"]

ValueT = TypeVar("ValueT")

_SPANS: Final[Mapping[str, Callable[[str], list[tuple[int, int]]]]] = {
    "word": word_spans,
    "character": character_spans,
}

_END: Final = "</s>"
# Columns of several tokens, and how many.
_JOINED: Final[Mapping[str, int]] = {"bigram": 2, "trigram": 3}
_MAX_CACHED_TOKENS: Final = 65_536
_ID_BYTES: Final = np.dtype(np.int32).itemsize


@dataclass(frozen=True, slots=True, eq=False)
class EncodedText:
    """The tokens of one text.

    ids: int32 [steps, columns], 1 where a column's entry is unknown; never 0, which is padding.
    starts, ends: int32 [steps], code points into the original text, half open.
    """

    ids: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int32]
    ends: npt.NDArray[np.int32]


class TextEncoder:
    """Encodes the texts of one package.

    The ids of a token depend on its text alone, except in `bigram` and `trigram` columns, where the next ones count,
    and in `begins` and `ends` columns, where those around it do.
    Calls are independent of each other; any thread may make them.

    Args:
        encoding: A vocabulary for words and characters, a subword tokenizer for subwords.
        words: The words of `begins` and `ends` columns with their classes, in place of the vocabulary's.
    """

    def __init__(
        self, spec: TextSpec, encoding: Vocabulary | SubwordTokenizer, words: Mapping[str, int] | None = None
    ) -> None:
        if isinstance(encoding, SubwordTokenizer) != (spec.tokenizer == "subword"):
            raise TypeError(f"tokenizer {spec.tokenizer!r} does not go with a {type(encoding).__name__}")
        self._encode: Callable[[str], EncodedText]
        self._encode_ids: Callable[[Sequence[str]], tuple[list[int], npt.NDArray[np.int32]]] = self._ids_with_spans
        self._encode_tokens: Callable[[Sequence[str]], npt.NDArray[np.int32]]
        if isinstance(encoding, SubwordTokenizer):
            self._subwords = encoding
            self._encode = self._encode_subwords
            self._encode_tokens = self._first_subwords
        else:
            self._spans = _SPANS[spec.tokenizer]
            if words is None:
                words = encoding.words(spec.word_classes)
            self._lookup = _Lookup(spec.columns, encoding, Lexicon(words, spec.word_classes))
            if spec.tokenizer == "word":
                self._encode_ids = self._lookup.rows_of_texts
            self._encode = self._encode_spans
            self._encode_tokens = self._lookup.rows

    @classmethod
    def load(cls, spec: TextSpec, directory: Path) -> Self:
        """Reads `vocab.txt`, or `tokenizer.json` for subwords, from a package's directory.

        Raises:
            PackageError: The file is missing or does not fit the spec; every problem found is listed.
        """
        if spec.tokenizer == "subword":
            return cls(spec, SubwordTokenizer.load(directory, spec.columns[0].size))
        return cls(spec, Vocabulary.load(directory, spec.columns))

    def encode(self, text: str) -> EncodedText:
        """Splits a text into tokens and encodes them; a text without tokens gives zero steps."""
        return self._encode(text)

    def encode_ids(self, text: str) -> npt.NDArray[np.int32]:
        """The ids that `encode` gives, int32 [steps, columns], where nobody asks where the tokens stand."""
        return self._encode_ids([text])[1]

    def encode_all_ids(self, texts: Sequence[str]) -> tuple[list[int], npt.NDArray[np.int32]]:
        """The same of one text or more, one after another: the steps of each, and int32 [all steps, columns]."""
        return self._encode_ids(texts)

    def encode_tokens(self, tokens: Sequence[str]) -> EncodedText:
        """Encodes given tokens, one step each; offsets are into the tokens joined by one space.

        With subwords the id of a token is that of its first subword.
        """
        lengths = np.fromiter((len(token) for token in tokens), np.int32, len(tokens))
        ends = np.fromiter(accumulate(lengths.tolist(), lambda end, length: end + 1 + length), np.int32, len(tokens))
        return EncodedText(self._encode_tokens(tokens), ends - lengths, ends)

    def _ids_with_spans(self, texts: Sequence[str]) -> tuple[list[int], npt.NDArray[np.int32]]:
        parts = [self._encode(text).ids for text in texts]
        return list(map(len, parts)), np.concatenate(parts)

    def _encode_spans(self, text: str) -> EncodedText:
        spans = self._spans(text)
        offsets = np.array(spans, np.int32).reshape(-1, 2)
        ids = self._lookup.rows([text[start:end] for start, end in spans])
        return EncodedText(ids, offsets[:, 0].copy(), offsets[:, 1].copy())

    def _encode_subwords(self, text: str) -> EncodedText:
        ids, spans = self._subwords.split(text)
        offsets = np.array(spans, np.int32).reshape(-1, 2)
        return EncodedText(np.array(ids, np.int32).reshape(-1, 1), offsets[:, 0].copy(), offsets[:, 1].copy())

    def _first_subwords(self, tokens: Sequence[str]) -> npt.NDArray[np.int32]:
        return np.array(self._subwords.first_ids(tokens), np.int32).reshape(-1, 1)


class _NeedsContext(Exception):
    """The words of a piece of text depend on what stands around it."""


class _Lookup:
    """Ids of tokens. Words repeat, so what a token gave is kept, within a bound; so do words with their punctuation.

    What is kept are int32 in the machine's order, so that a text is one join.
    """

    def __init__(self, columns: Sequence[ColumnSpec], vocabulary: Vocabulary, lexicon: Lexicon) -> None:
        self._num_columns = len(columns)
        self._lexicon = lexicon
        self._listed = [
            (index, WORD_KINDS.index(column.kind)) for index, column in enumerate(columns) if column.kind in WORD_KINDS
        ]
        self._columns = [(_entry_of(column), vocabulary.ids(column.name)) for column in columns]
        self._joined = [
            (index, _JOINED[column.kind], vocabulary.ids(column.name))
            for index, column in enumerate(columns)
            if column.kind in _JOINED
        ]
        self._cache: dict[str, bytes] = {}
        self._pieces: dict[str, bytes] = {}
        self._forms: dict[str, str] = {}

    def rows(self, tokens: Sequence[str]) -> npt.NDArray[np.int32]:
        """int32 [len(tokens), columns]."""
        ids = self._array(_kept(self._cache, tokens, self._ids))
        if not self._joined and not self._listed:
            return ids
        normalised = _kept(self._forms, tokens, self._form)
        for index, width, known in self._joined:
            ids[:, index] = list(map(known.get, _neighbours(normalised, width), repeat(UNKNOWN)))
        if self._listed:
            codes = self._lexicon.codes(normalised)
            for index, kind in self._listed:
                ids[:, index] = FIRST_ENTRY + codes[kind]
        return ids

    def rows_of_texts(self, texts: Sequence[str]) -> tuple[list[int], npt.NDArray[np.int32]]:
        """What `rows` gives for the `words` of some texts, and the number of each: a quarter of the time where their
        pieces were seen before."""
        parts = list(map(self._ids_of_text, texts))
        step_bytes = _ID_BYTES * self._num_columns
        return [len(part) // step_bytes for part in parts], self._array(parts)

    def _ids_of_text(self, text: str) -> bytes:
        if not self._joined:  # words of a list are for characters, never met here
            try:
                return b"".join(_kept(self._pieces, text.split(), self._piece))
            except _NeedsContext:
                pass
        return self.rows(words(text)).tobytes()

    def _piece(self, piece: str) -> bytes:
        """The ids of the words of a piece between white space."""
        if not stands_alone(piece):
            raise _NeedsContext
        ids = b"".join(_kept(self._cache, words(piece), self._ids))
        _keep(self._pieces, piece, ids)
        return ids

    def _array(self, ids: Sequence[bytes]) -> npt.NDArray[np.int32]:
        # A bytearray, for an array that can be written to.
        return np.frombuffer(bytearray().join(ids), np.int32).reshape(-1, self._num_columns)

    def _form(self, token: str) -> str:
        form = normalise(token)
        _keep(self._forms, token, form)
        return form

    def _ids(self, token: str) -> bytes:
        normalised = normalise(token)
        columns = [known.get(entry(normalised), UNKNOWN) for entry, known in self._columns]
        ids = np.array(columns, np.int32).tobytes()
        _keep(self._cache, token, ids)
        return ids


def _kept(cache: Mapping[str, ValueT], keys: Sequence[str], make: Callable[[str], ValueT]) -> list[ValueT]:
    """What is kept for each key; what is not is made. Mostly all is, and then no loop of ours runs."""
    found = list(map(cache.get, keys))
    if None in found:
        return [make(key) if value is None else value for key, value in zip(keys, found, strict=True)]
    return cast(list[ValueT], found)


def _keep(cache: dict[str, ValueT], key: str, value: ValueT) -> None:
    if len(key) <= MAX_TOKEN_CODE_POINTS:  # else a few giant tokens could hold much memory
        if len(cache) >= _MAX_CACHED_TOKENS:
            cache.clear()
        cache[key] = value


def count_entries(spec: TextSpec, items: Iterable[str | Sequence[str]]) -> dict[str, Counter[str]]:
    """Counts the entries of every column over texts, or lists of tokens, for `Vocabulary.build`.

    The spec's tokenizer must be `word` or `character`; a subword tokenizer is trained by its own library.
    """
    spans = _SPANS[spec.tokenizer]
    token_counts: Counter[str] = Counter()
    joined_counts: dict[str, Counter[str]] = {
        column.name: Counter() for column in spec.columns if column.kind in _JOINED
    }
    for item in items:
        tokens = [item[start:end] for start, end in spans(item)] if isinstance(item, str) else item
        token_counts.update(tokens)
        if joined_counts:
            forms = {token: normalise(token) for token in set(tokens)}
            normalised_tokens = [forms[token] for token in tokens]
            for name, counter in joined_counts.items():
                counter.update(_neighbours(normalised_tokens, _JOINED[name]))
    normalised_counts: Counter[str] = Counter()
    for token, count in token_counts.items():
        normalised_counts[normalise(token)] += count
    counts: dict[str, Counter[str]] = {}
    for column in spec.columns:
        if column.kind in WORD_KINDS:
            continue
        if column.name in joined_counts:
            counts[column.name] = joined_counts[column.name]
            continue
        entry = _entry_of(column)
        counts[column.name] = Counter()
        for normalised, count in normalised_counts.items():
            counts[column.name][entry(normalised)] += count
    return counts


def _entry_of(column: ColumnSpec) -> Callable[[str], str]:
    """Gives the function from a normalised token to its entry in a column (of several tokens: the first alone)."""
    length = column.length
    if column.kind == "lower":
        return str.lower
    if column.kind == "shape":
        return shape
    if column.kind == "prefix":
        return lambda token: token[:length]
    if column.kind == "suffix" and length is not None:
        return lambda token: token[-length:]
    return lambda token: token


def _neighbours(normalised: Sequence[str], width: int) -> list[str]:
    """Each normalised token joined by spaces to the next ones, `width` in all; after the last stand end markers."""
    extended = [*normalised, *[_END] * (width - 1)]
    return list(map(" ".join, zip(*(extended[first:] for first in range(width)), strict=False)))
