"""A behaviour suite: small cases of what a user expects, each of a capability (Ribeiro et al. 2020, CheckList).

A case is a line of `<recipe>.behaviour.jsonl`: its `text`, perhaps read several `times` in a row, must get a `label`,
or the same label as another text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from conveyor.errors import InvalidArgument

__all__ = ["Case", "Verdict", "judge", "read_cases"]


class Case(BaseModel):
    """One expectation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    capability: str
    text: str
    times: Annotated[int, Field(ge=1)] = 1
    label: str | None = None
    same_as: str | None = None

    @model_validator(mode="after")
    def _expects_one_thing(self) -> Case:
        if (self.label is None) == (self.same_as is None):
            raise ValueError("a case has either 'label' or 'same_as'")
        return self


class Verdict(BaseModel):
    """How many cases of a capability came out as expected, and the texts of the others, shortened."""

    model_config = ConfigDict(frozen=True)

    passed: int
    cases: int
    failures: tuple[str, ...]


def read_cases(path: Path) -> list[Case]:
    """Reads the cases beside a recipe; none where there is no file.

    Raises:
        InvalidArgument: A line is not a case.
    """
    if not path.is_file():
        return []
    adapter = TypeAdapter(Case)
    try:
        return [adapter.validate_json(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    except ValidationError as error:
        raise InvalidArgument(f"{path.name} holds a line that is no case: {error}") from error


def judge(cases: Sequence[Case], label_of: Callable[[str], str]) -> Mapping[str, Verdict]:
    """A verdict for each capability, in the order of the cases."""
    outcomes: dict[str, list[str | None]] = {}
    for case in cases:
        expected = case.label if case.same_as is None else label_of(case.same_as)
        passed = expected == label_of(case.text * case.times)
        outcomes.setdefault(case.capability, []).append(None if passed else _shown(case.text))
    return {
        capability: Verdict(
            passed=found.count(None), cases=len(found), failures=tuple(text for text in found if text is not None)
        )
        for capability, found in outcomes.items()
    }


def _shown(text: str) -> str:
    return " ".join(text.split())[:80]
