"""`model.toml`: text to `PackageSpec` and back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from conveyor.errors import PackageError, Problem
from conveyor.repository.notation import dotted
from conveyor.repository.toml import read_toml, with_tuples
from conveyor.spec import FORMAT_VERSION, PackageSpec, package_spec_adapter

__all__ = ["read_manifest", "render_manifest"]


def read_manifest(path: Path) -> PackageSpec:
    """Reads a `model.toml`. Types are strict: a number in quotes is not a number.

    Raises:
        PackageError: With every problem found. A `format_version` this server does not read is the only problem
            reported, since the rest is then in a schema it does not know.
    """
    document = read_toml(path)
    version = document.get("format_version", FORMAT_VERSION)
    if type(version) is not int or version != FORMAT_VERSION:
        message = f"{version!r} is not supported, this server reads {FORMAT_VERSION}"
        raise PackageError([Problem(path.name, "format_version", message)])
    try:
        return package_spec_adapter.validate_python(with_tuples(document), strict=True)
    except ValidationError as error:
        raise PackageError([_problem(path.name, detail) for detail in _independent(error)]) from error


def render_manifest(spec: PackageSpec) -> str:
    """Writes a `model.toml` that reads back as an equal spec. Defaults are written out: a later change of a default
    does not change a package."""
    # TOML has no null; None is always the default of its field, so leaving it out loses nothing.
    return tomli_w.dumps(spec.model_dump(mode="python", exclude_none=True))


def _independent(error: ValidationError) -> list[ErrorDetails]:
    """Without the complaints that an array is too short because of items already complained about."""
    details = error.errors(include_url=False)
    places = [detail["loc"] for detail in details]

    def follows(detail: ErrorDetails) -> bool:
        place = detail["loc"]
        return detail["type"] == "too_short" and any(p != place and p[: len(place)] == place for p in places)

    return [detail for detail in details if not follows(detail)]


def _problem(file: str, detail: ErrorDetails) -> Problem:
    # The first part of a place is the task, which names the member of the union, not a key of the file.
    task, *path = detail["loc"] or ("",)
    context = detail.get("ctx", {})
    match detail["type"]:
        case "union_tag_not_found":
            return Problem(file, "task", f"is missing; accepted are {', '.join(map(repr, _schemas()))}")
        case "union_tag_invalid":
            return Problem(file, "task", f"{context['tag']!r} is unknown; accepted are {context['expected_tags']}")
        case "extra_forbidden":
            accepted = _accepted_keys(str(task), path[:-1])
            return Problem(file, dotted(path), f"is an unknown key; accepted here are {', '.join(accepted)}")
        case "missing":
            message = "is missing"
        case "value_error":
            message = str(context["error"])
        case _:
            got = detail["input"]
            shown = f", got {got!r}" if isinstance(got, str | int | float) else ""
            message = detail["msg"].replace("Input should", "should").replace("Tuple should", "should") + shown
    return Problem(file, dotted(path), message)


def _schemas() -> dict[str, str]:
    mapping: dict[str, str] = package_spec_adapter.json_schema()["discriminator"]["mapping"]
    return mapping


def _accepted_keys(task: str, path: Sequence[str | int]) -> list[str]:
    """The keys the schema knows at a place."""
    definitions = package_spec_adapter.json_schema()["$defs"]

    def resolve(node: dict[str, Any]) -> dict[str, Any]:
        return definitions[node["$ref"].rpartition("/")[2]] if "$ref" in node else node

    node = resolve({"$ref": _schemas()[task]})
    for part in path:
        node = resolve(node["items"] if isinstance(part, int) else node["properties"][part])
    return sorted(node["properties"])
