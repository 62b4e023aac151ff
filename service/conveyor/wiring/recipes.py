"""Recipes by path or by the name of one that is shipped."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from conveyor.errors import InvalidArgument

__all__ = ["find_recipe"]


def find_recipe(recipe: str) -> Path:
    """The file of a recipe.

    Raises:
        InvalidArgument: It is neither a file nor the name of a shipped recipe.
    """
    path = Path(recipe)
    if path.is_file():
        return path
    shipped = Path(str(files("conveyor.training"))) / "recipes"
    named = shipped / f"{recipe}.toml"
    if named.is_file():
        return named
    names = ", ".join(sorted(file.stem for file in shipped.glob("*.toml")))
    raise InvalidArgument(f"{recipe!r} is neither a TOML file nor one of the shipped recipes: {names}", field="recipe")
