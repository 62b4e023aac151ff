"""What a folder of models is taken to hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from conveyor.domain import ModelKey
from conveyor.errors import PackageError
from conveyor.repository.layout import scan


def _folders(root: Path, *names: str) -> None:
    for name in names:
        (root / name).mkdir(parents=True)


def test_versions_come_highest_first(tmp_path: Path) -> None:
    """Versions are ordered as numbers: 10 comes before 9."""
    _folders(tmp_path, "mood/9", "mood/10", "mood/1", "load/2")
    layout = scan(tmp_path)
    assert list(layout.versions) == ["load", "mood"]
    assert [ModelKey("mood", version) for version in ("10", "9", "1")] == list(layout.versions["mood"])
    assert tmp_path / "mood" / "10" == layout.versions["mood"][ModelKey("mood", "10")]
    assert layout.problems == ()


@pytest.mark.parametrize("name", ["01", "0", "-1", "1.0", "v1", "latest", "¹", "٣"])
def test_a_folder_that_is_no_version_is_reported(tmp_path: Path, name: str) -> None:
    """Only positive integers in plain digits without leading zeros are versions."""
    _folders(tmp_path, "mood/1", f"mood/{name}")
    layout = scan(tmp_path)
    assert [ModelKey("mood", "1")] == list(layout.versions["mood"])
    assert [f"mood/{name}"] == [problem.file for problem in layout.problems]


def test_strays_are_reported_and_hidden_ones_are_not(tmp_path: Path) -> None:
    """A stray file, a model without versions and a name outside the pattern are problems; hidden entries are not."""
    _folders(tmp_path, "mood/1", "mood/.2.unfinished", "empty", "Upper/1", ".git")
    (tmp_path / "notes.txt").touch()
    (tmp_path / "mood" / "2").touch()
    (tmp_path / ".DS_Store").touch()
    layout = scan(tmp_path)
    assert {"mood": [ModelKey("mood", "1")]} == {name: list(found) for name, found in layout.versions.items()}
    assert [problem.file for problem in layout.problems] == ["Upper", "empty", "mood/2", "notes.txt"]


def test_links_to_folders_are_followed(tmp_path: Path) -> None:
    """A version may be a link to a folder elsewhere; a link to nothing is a problem."""
    _folders(tmp_path, "store/abc", "models/mood")
    (tmp_path / "models" / "mood" / "4").symlink_to(tmp_path / "store" / "abc")
    (tmp_path / "models" / "mood" / "5").symlink_to(tmp_path / "gone")
    layout = scan(tmp_path / "models")
    assert [ModelKey("mood", "4")] == list(layout.versions["mood"])
    assert [problem.file for problem in layout.problems] == ["mood/5"]


def test_an_empty_folder_holds_no_models(tmp_path: Path) -> None:
    """No models is a valid state of the folder."""
    assert scan(tmp_path).versions == {}


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    """A folder of models that does not exist is refused by its path."""
    with pytest.raises(PackageError, match="absent: is not a readable folder"):
        scan(tmp_path / "absent")
