"""Subwords as the `tokenizers` library gives them, from the package's `tokenizer.json`.

The file's own ids are the ids of the column, so it must keep to their meaning: `[PAD]` is 0 and `[UNK]` is 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

from tokenizers import Tokenizer

from conveyor.errors import PackageError, Problem
from conveyor.features.vocabulary import PADDING, UNKNOWN

__all__ = ["TOKENIZER_FILE", "SubwordTokenizer"]

TOKENIZER_FILE: Final = "tokenizer.json"


class SubwordTokenizer:
    """Splits texts into subwords. Special tokens are never added, nothing is cut off, nothing is padded."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer

    @classmethod
    def load(cls, directory: Path, size: int) -> Self:
        """Reads `tokenizer.json` in a package's directory.

        Args:
            size: Ids the column has room for.

        Raises:
            PackageError: The file cannot be read, `[PAD]` is not 0, `[UNK]` is not 1, or an id is `size` or more.
        """
        try:
            tokenizer = Tokenizer.from_str((directory / TOKENIZER_FILE).read_text(encoding="utf-8"))
        except OSError as error:
            raise PackageError([Problem(TOKENIZER_FILE, "", f"cannot be read: {error.strerror}")]) from error
        except Exception as error:  # the library raises plain Exception for every malformed file
            raise PackageError([Problem(TOKENIZER_FILE, "", f"is no tokenizer: {error}")]) from error
        problems = [
            Problem(
                TOKENIZER_FILE, f"model.vocab.{token}", f"must have id {wanted}, has {tokenizer.token_to_id(token)}"
            )
            for token, wanted in (("[PAD]", PADDING), ("[UNK]", UNKNOWN))
            if tokenizer.token_to_id(token) != wanted
        ]
        largest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=0)
        if largest >= size:
            problems.append(Problem(TOKENIZER_FILE, "model.vocab", f"ids must be below {size}, got {largest}"))
        if problems:
            raise PackageError(problems)
        return cls(tokenizer)

    def split(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Gives the ids of a text's subwords and where they stand: code points into the text, half open, in order."""
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets

    def first_ids(self, tokens: Sequence[str]) -> list[int]:
        """Gives the id of the first subword of each token, unknown for a token that has none."""
        encodings = self._tokenizer.encode_batch(list(tokens), add_special_tokens=False)
        return [encoding.ids[0] if encoding.ids else UNKNOWN for encoding in encodings]
