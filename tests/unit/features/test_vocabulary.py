from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conveyor.errors import PackageError
from conveyor.features.vocabulary import Vocabulary
from conveyor.spec import ColumnSpec

TOKEN = ColumnSpec(kind="token", size=5, dim=2)
SUFFIX = ColumnSpec(kind="suffix", length=2, size=4, dim=2)


def problems(directory: Path, content: bytes) -> list[tuple[str, str]]:
    (directory / "vocab.txt").write_bytes(content)
    with pytest.raises(PackageError) as refused:
        Vocabulary.load(directory, [TOKEN, SUFFIX])
    assert {"vocab.txt"} == {problem.file for problem in refused.value.problems}
    return [(problem.field, problem.message) for problem in refused.value.problems]


def test_ids_begin_at_two_in_the_order_of_the_file(tmp_path: Path) -> None:
    """Padding and unknown are implicit; columns may be interleaved, and a line may hold several entries."""
    (tmp_path / "vocab.txt").write_bytes("token\tb\nsuffix2\txy\ntoken\t中 国\tc\n".encode())
    vocabulary = Vocabulary.load(tmp_path, [TOKEN, SUFFIX])
    assert {"b": 2, "中 国": 3, "c": 4} == vocabulary.ids("token")
    assert {"xy": 2} == vocabulary.ids("suffix2")
    assert 5 == vocabulary.size("token")


@pytest.mark.parametrize(
    ("content", "field", "words"),
    [
        (b"token\ta\nno tab\n", "line 2", "tab"),
        (b"token\t\n", "line 1", "entry"),
        (b"\n", "line 1", "tab"),
        (b"token\ta\t\n", "line 1", "entry"),
        (b"token\ta\tb\ta\n", "line 1", "repeats"),
        (b"token\ta\tb\tc\td\n", "line 1", "room for 3"),
        (b"lower\ta\n", "line 1", "'lower' is not in model.toml"),
        (b"token\ta\ntoken\tb\ntoken\ta\n", "line 3", "repeats"),
        (b"token\ta\ntoken\tb\ntoken\tc\ntoken\td\n", "line 4", "room for 3"),
        (b"token\ta\ntoken\t\xff\n", "line 2", "UTF-8"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, content: bytes, field: str, words: str) -> None:
    """Each fault of a file is reported with its line."""
    [(found, message)] = problems(tmp_path, content)
    assert field == found
    assert words in message


def test_every_wrong_line_is_reported_up_to_a_bound(tmp_path: Path) -> None:
    """Not only the first, and not thousands for a file of the wrong kind."""
    assert ["line 1", "line 2"] == [field for field, _ in problems(tmp_path, b"x\ny\n")]
    assert 20 == len(problems(tmp_path, b"x\n" * 1000))


def test_a_missing_file_is_a_problem(tmp_path: Path) -> None:
    """Not an OSError."""
    with pytest.raises(PackageError, match=r"vocab\.txt: cannot be read"):
        Vocabulary.load(tmp_path, [TOKEN])


def test_build_keeps_the_most_frequent_within_the_size() -> None:
    """Ties are in the order of the entries; the rare are left out."""
    counts = {"token": {"b": 2, "a": 2, "c": 9, "d": 1, "": 50}, "suffix2": {"zz": 1, "yy": 3}}
    assert ["c", "a", "b"] == list(Vocabulary.build(counts, [TOKEN, SUFFIX]).ids("token"))
    assert ["c"] == list(Vocabulary.build(counts, [TOKEN, SUFFIX], min_count=3).ids("token"))
    built = Vocabulary.build(counts, [TOKEN, SUFFIX], {"suffix2": 2})
    assert (["c", "a", "b"], ["yy"]) == (list(built.ids("token")), list(built.ids("suffix2")))


_entry = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\t\n"), min_size=1, max_size=8)


@given(st.lists(_entry, unique=True, max_size=3), st.lists(_entry, unique=True, max_size=2))
def test_what_is_saved_is_loaded(tmp_path_factory: pytest.TempPathFactory, tokens: list[str], ends: list[str]) -> None:
    """Any entries without tab and line feed, odd line separators included, come back with their ids."""
    directory = tmp_path_factory.mktemp("vocabulary")
    vocabulary = Vocabulary({"token": tokens, "suffix2": ends})
    vocabulary.save(directory)
    loaded = Vocabulary.load(directory, [TOKEN, SUFFIX])
    assert vocabulary.ids("token") == loaded.ids("token")
    assert vocabulary.ids("suffix2") == loaded.ids("suffix2")


@pytest.mark.parametrize("entry", ["a\tb", "a\nb", ""])
def test_save_refuses_what_it_could_not_load(tmp_path: Path, entry: str) -> None:
    """A broken file is never written."""
    with pytest.raises(ValueError, match="cannot be written"):
        Vocabulary({"token": [entry]}).save(tmp_path)
    assert not (tmp_path / "vocab.txt").exists()


BEGINS = ColumnSpec(kind="begins", classes=2, size=83, dim=2)


def test_words_come_back_with_their_classes(tmp_path: Path) -> None:
    """As many as there are: the size of a column of words is that of its codes."""
    words = {f"词{number}": 1 + number % 2 for number in range(200)}
    Vocabulary.build({"token": {"中": 1}}, [TOKEN, BEGINS], words=words).save(tmp_path)
    vocabulary = Vocabulary.load(tmp_path, [TOKEN, BEGINS])
    assert words == vocabulary.words(2)
    assert {"中": 2} == vocabulary.ids("token")


@pytest.mark.parametrize(
    ("content", "message"),
    [("class1\t中国\nclass2\t中国\n", "of another class"), ("class3\t中国\n", "not in model.toml")],
)
def test_a_word_is_of_one_class_that_there_is(tmp_path: Path, content: str, message: str) -> None:
    """A file that says otherwise is refused."""
    (tmp_path / "vocab.txt").write_text(content, encoding="utf-8")
    with pytest.raises(PackageError, match=message):
        Vocabulary.load(tmp_path, [BEGINS])
