"""The bodies of the session routes' answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import TypeAdapter
from pydantic_core import to_json

from conveyor.api.rest.answers import FORECAST_RESULT
from conveyor.api.shown import clamp
from conveyor.domain import Forecast, SessionAdvance, SessionEnd, SessionInfo
from conveyor.errors import Code, ConveyorError
from conveyor.gateway.advancing import Advances

__all__ = [
    "ADVANCE",
    "ADVANCES",
    "END",
    "INFO",
    "write_advance",
    "write_advances",
    "write_end",
    "write_info",
]


@dataclass(frozen=True, slots=True)
class AdvancedItem:
    """One of many sessions after what was appended to it, or why nothing was."""

    session: str
    steps: int | None = None
    result: Forecast | None = None
    error: str | None = None
    code: Code | None = None


@dataclass(frozen=True, slots=True)
class AdvancedMany:
    """What became of the items, in their order."""

    items: Sequence[AdvancedItem]


INFO = TypeAdapter(SessionInfo)
ADVANCE = TypeAdapter(SessionAdvance)
END = TypeAdapter(SessionEnd)
ADVANCES = TypeAdapter(AdvancedMany)


def write_info(info: SessionInfo) -> bytes:
    """A session as it stands."""
    return INFO.dump_json(info)


def write_advance(advance: SessionAdvance) -> bytes:
    """A session after an append."""
    return ADVANCE.dump_json(advance, exclude_none=True)


def write_end(end: SessionEnd) -> bytes:
    """A session that was closed."""
    return END.dump_json(end)


def write_advances(advances: Advances) -> bytes:
    """What became of many appends; as `ADVANCES` would write it, a hundred times faster.

    The failures are as they may be shown. A session that was advanced has an id of ours, which needs no escapes.
    """
    failures, results = advances.failures, advances.results
    items = [
        f'{{"session":"{session}","steps":{steps}}}'
        for session, steps in zip(advances.sessions, advances.steps.tolist(), strict=True)
    ]
    for index, result in results.items():
        items[index] = f'{items[index][:-1]},"result":{FORECAST_RESULT.dump_json(result, exclude_none=True).decode()}}}'
    for index, error in failures.items():
        items[index] = _failure(advances.sessions[index], error)
    return f'{{"items":[{",".join(items)}]}}'.encode()


def _failure(session: str, error: ConveyorError) -> str:
    text = {"session": clamp(session), "error": clamp(error.message), "code": error.code.value}
    return to_json(text).decode()
