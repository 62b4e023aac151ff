"""The behaviour suite: what a case expects, and what a verdict says."""

from __future__ import annotations

from pathlib import Path

import pytest

import conveyor.training
from conveyor.errors import InvalidArgument
from conveyor.training.behaviour import Case, judge, read_cases
from conveyor.training.recipe import SentimentRecipe, load_recipe

SUITES = sorted((Path(conveyor.training.__path__[0]) / "recipes").glob("*.behaviour.jsonl"))


def test_cases_are_judged_by_capability() -> None:
    """A label that is wrong and a pair that differs are failures, shown shortened."""
    cases = [
        Case(capability="plain", text="good", label="positive"),
        Case(capability="plain", text="odd " * 60, label="negative"),
        Case(capability="case", text="GOOD", same_as="good"),
        Case(capability="length", text="good ", times=3, label="positive"),
    ]
    seen: list[str] = []

    def label_of(text: str) -> str:
        seen.append(text)
        return "positive"

    verdicts = judge(cases, label_of)
    assert ["plain", "case", "length"] == list(verdicts)
    assert (1, 2) == (verdicts["plain"].passed, verdicts["plain"].cases)
    assert 80 == len(verdicts["plain"].failures[0])
    assert (1, ()) == (verdicts["case"].passed, verdicts["case"].failures)
    assert "good good good " in seen


def test_a_recipe_without_a_suite_has_no_cases(tmp_path: Path) -> None:
    """Nothing is expected of it."""
    assert [] == read_cases(tmp_path / "none.behaviour.jsonl")


@pytest.mark.parametrize(
    "line", ['{"capability": "a", "text": "b"}', "{", '{"text": "b", "label": "c", "same_as": "d"}']
)
def test_what_is_no_case_is_refused(tmp_path: Path, line: str) -> None:
    """A case expects one thing."""
    path = tmp_path / "a.behaviour.jsonl"
    path.write_text(line, encoding="utf-8")
    with pytest.raises(InvalidArgument, match="no case"):
        read_cases(path)


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.name)
def test_a_shipped_suite_fits_its_recipe(path: Path) -> None:
    """Its labels are the recipe's, and it covers what users write."""
    recipe = load_recipe(path.with_name(path.name.replace(".behaviour.jsonl", ".toml")))
    assert isinstance(recipe, SentimentRecipe)
    cases = read_cases(path)
    assert {case.label for case in cases} <= {None, *recipe.labels}
    assert {"negation", "contrast", "HTML", "emoji and marks", "widths", "length"} <= {c.capability for c in cases}
