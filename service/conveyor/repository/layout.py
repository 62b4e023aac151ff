"""A folder of models: `<name>/<version>/`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from conveyor.domain import ModelKey
from conveyor.errors import PackageError, Problem
from conveyor.repository.package import VERSION_PATTERN
from conveyor.spec import NAME_PATTERN

__all__ = ["Layout", "scan"]


@dataclass(frozen=True, slots=True)
class Layout:
    """What lies in a folder of models.

    versions: by name, the versions and their folders, highest first: the first serves by default.
    problems: what lies there and is neither a model nor hidden; `file` is relative to the folder.
    """

    versions: Mapping[str, Mapping[ModelKey, Path]]
    problems: tuple[Problem, ...]


def scan(models: Path) -> Layout:
    """Finds the packages of a folder without reading them.

    Names that begin with a dot are ignored. Links to folders are followed wherever they lead: whoever may write to
    the folder of models decides what is served.

    Raises:
        PackageError: `models` is not a folder that can be read.
    """
    try:
        entries = _visible(models)
    except OSError as error:
        raise PackageError([Problem(str(models), "", f"is not a readable folder: {error.strerror}")]) from error
    versions: dict[str, Mapping[ModelKey, Path]] = {}
    problems: list[Problem] = []
    for entry in entries:
        if not entry.is_dir() or not NAME_PATTERN.fullmatch(entry.name):
            message = "is not a model; a model is a folder named in lower case letters, digits, '.', '_' and '-'"
            problems.append(Problem(entry.name, "", message))
            continue
        try:
            found, wrong = _scan_model(entry)
        except OSError as error:
            problems.append(Problem(entry.name, "", f"is not a readable folder: {error.strerror}"))
            continue
        problems += wrong
        if found:
            versions[entry.name] = found
        else:
            problems.append(Problem(entry.name, "", "holds no version; a version is a folder named 1, 2, …"))
    return Layout(versions, tuple(problems))


def _scan_model(directory: Path) -> tuple[dict[ModelKey, Path], list[Problem]]:
    found = []
    problems = []
    for entry in _visible(directory):
        if entry.is_dir() and VERSION_PATTERN.fullmatch(entry.name):
            found.append(entry)
        else:
            message = "is not a version; a version is a folder named by a positive integer without leading zeros"
            problems.append(Problem(f"{directory.name}/{entry.name}", "", message))
    found.sort(key=lambda entry: int(entry.name), reverse=True)
    return {ModelKey(directory.name, entry.name): entry for entry in found}, problems


def _visible(directory: Path) -> list[Path]:
    return sorted(entry for entry in directory.iterdir() if not entry.name.startswith("."))
