"""Files of tokens with tags."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from conveyor.errors import InvalidArgument
from conveyor.training.examples import TaggedTokens
from conveyor.training.readers.files import open_text

__all__ = ["read_characters", "read_cluener", "read_conllu", "read_iob2", "read_peoples_daily"]

_UPOS_COLUMN = 3
_IOB2_TAG_COLUMN = 2
_WEIBO_TOKEN = re.compile(r"(.)\d")
_BRACKET_CLOSE = re.compile(r"\][A-Za-z]+$")


def read_conllu(path: Path) -> list[TaggedTokens]:
    """Reads words and their UPOS tags from CoNLL-U (or CoNLL 2017). Ranges of multiword tokens (`3-4`) and empty
    nodes (`8.1`) are no words and are left out."""
    return _read_sentences(path, tag_column=_UPOS_COLUMN)


def read_iob2(path: Path) -> list[TaggedTokens]:
    """Reads Universal NER: `id TAB token TAB tag TAB …` with `# text = …` holding the raw sentence."""
    return _read_sentences(path, tag_column=_IOB2_TAG_COLUMN)


def read_characters(path: Path) -> list[TaggedTokens]:
    """Reads `token SPACE tag` or `token TAB tag` lines (MSRA, Resume, Weibo, WNUT-17), a blank line after each text.

    Weibo writes each character with a digit that counts it within its word; the digit is dropped when every token of
    the file has one.
    """
    sentences = []
    for number, lines in _blocks(path):
        rows = [re.split(r"[ \t]", line.rstrip(), maxsplit=1) for line in lines]
        if any(len(row) != 2 for row in rows):
            raise InvalidArgument(f"{path}: the text at line {number} has a line that is not 'token tag'")
        sentences.append(([token for token, _ in rows], [tag for _, tag in rows]))
    if all(_WEIBO_TOKEN.fullmatch(token) for tokens, _ in sentences for token in tokens):
        sentences = [([token[0] for token in tokens], tags) for tokens, tags in sentences]
    return [TaggedTokens(tuple(tokens), tuple(tags)) for tokens, tags in sentences]


def read_peoples_daily(path: Path) -> list[TaggedTokens]:
    """Reads words and their tags from lines `id/m  word/TAG  [word/TAG word/TAG]nt`, a paragraph each.

    The first item names the paragraph and is left out; brackets mark names of several words, whose words stay.
    """
    examples = []
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            words, tags = [], []
            for item in line.split()[1:]:
                word, slash, tag = _BRACKET_CLOSE.sub("", item).rpartition("/")
                if len(word) > 1 and word.startswith("["):
                    word = word[1:]
                if not slash or not word or not tag:
                    raise InvalidArgument(f"{path}: line {number} has an item that is not 'word/TAG'")
                words.append(word)
                tags.append(tag)
            if words:
                examples.append(TaggedTokens(tuple(words), tuple(tags)))
    return examples


def read_cluener(path: Path) -> list[TaggedTokens]:
    """Reads JSON lines `{"text", "label": {type: {entity: [[start, end inclusive], …]}}}` as characters with BIO tags.

    Where two entities overlap, the one named first keeps its characters and the other is left out: BIO holds one.
    """
    examples = []
    with open_text(path) as file:
        for line in file:
            row = json.loads(line)
            text = row["text"]
            tags = ["O"] * len(text)
            for kind, entities in row.get("label", {}).items():
                for start, last in (span for spans in entities.values() for span in spans):
                    if all(tag == "O" for tag in tags[start : last + 1]):
                        tags[start : last + 1] = [f"B-{kind}"] + [f"I-{kind}"] * (last - start)
            examples.append(TaggedTokens(tuple(text), tuple(tags), text))
    return examples


def _read_sentences(path: Path, tag_column: int) -> list[TaggedTokens]:
    examples = []
    for number, lines in _blocks(path):
        text = next((line.split("=", 1)[1].strip() for line in lines if line.startswith("# text =")), None)
        rows = [line.rstrip("\r\n").split("\t") for line in lines if not line.startswith("#")]
        words = [row for row in rows if row[0].isdecimal()]
        if any(len(row) <= tag_column for row in words):
            raise InvalidArgument(f"{path}: the sentence at line {number} has a row of too few columns")
        if words:
            tokens, tags = (tuple(row[column] for row in words) for column in (1, tag_column))
            examples.append(TaggedTokens(tokens, tags, text))
    return examples


def _blocks(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The runs of lines between blank lines, each with the number of its first line."""
    with open_text(path) as file:
        for blank, group in groupby(enumerate(file, 1), key=lambda item: not item[1].strip()):
            if not blank:
                numbered = list(group)
                yield numbered[0][0], [line for _, line in numbered]
