"""The schema of recipes, and the recipes that come with the package."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import conveyor.training
from conveyor.errors import InvalidArgument
from conveyor.training.recipe import load_recipe

SHIPPED = sorted((Path(conveyor.training.__path__[0]) / "recipes").glob("*.toml"))


def test_the_four_first_recipes_are_shipped() -> None:
    """One for each default model, and segmentation."""
    assert {"sentiment-en", "segment-zh", "pos-en", "forecast-electricity"} <= {path.stem for path in SHIPPED}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_recipe_is_valid_and_has_samples(path: Path) -> None:
    """Its name is its file's, it trains and scores on something, and brings its own inputs."""
    recipe = load_recipe(path)
    assert path.stem == recipe.name
    assert {"train", "dev"} == {data.part for data in recipe.data} - {"text"}
    lines = path.with_suffix(".samples.jsonl").read_text(encoding="utf-8").split("\n")
    samples = [json.loads(line) for line in lines if line]
    assert 6 <= len(samples) <= 12
    assert all("input" in sample and "output" not in sample for sample in samples)


def test_every_problem_of_a_recipe_is_named(tmp_path: Path) -> None:
    """An unknown key and a wrong value are both in the message."""
    text = SHIPPED[0].read_text(encoding="utf-8").replace("seed = 1", 'seed = "one"\nspeed = 3', 1)
    (tmp_path / "r.toml").write_text(text, encoding="utf-8")
    with pytest.raises(InvalidArgument) as caught:
        load_recipe(tmp_path / "r.toml")
    assert "training.seed" in caught.value.message
    assert "training.speed" in caught.value.message


@pytest.mark.parametrize(("text", "message"), [("name = ", "is not TOML"), ("", "task")])
def test_what_is_no_recipe_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """Broken TOML and a missing task are errors that say so."""
    (tmp_path / "r.toml").write_text(text, encoding="utf-8")
    with pytest.raises(InvalidArgument, match=message):
        load_recipe(tmp_path / "r.toml")
    with pytest.raises(InvalidArgument, match="there is no recipe"):
        load_recipe(tmp_path / "none.toml")
