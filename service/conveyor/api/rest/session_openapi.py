"""What `/openapi.json` says about the session routes, which FastAPI does not know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from pydantic import TypeAdapter

from conveyor.api.rest.session_answers import ADVANCE, ADVANCES, END, INFO
from conveyor.api.rest.session_bodies import AppendBody, AppendManyBody, OpenBody

__all__ = ["SESSION_ADAPTERS", "SESSION_OPERATIONS", "SessionOperation"]

SESSION_ADAPTERS: Mapping[str, TypeAdapter[Any]] = {
    "OpenSessionRequest": TypeAdapter(OpenBody),
    "AppendRequest": TypeAdapter(AppendBody),
    "AppendManyRequest": TypeAdapter(AppendManyBody),
    "Session": INFO,
    "Advance": ADVANCE,
    "Advances": ADVANCES,
    "SessionEnd": END,
}


@dataclass(frozen=True, slots=True)
class SessionOperation:
    """One method of one path. request, answer: names of schemas, "" for the bytes of a state, None for no body."""

    method: str
    path: str
    summary: str
    description: str
    answer: str
    request: str | None = None
    errors: Sequence[int] = ()


_GONE = HTTPStatus.NOT_FOUND
_BAD = HTTPStatus.BAD_REQUEST
_ONE = "/v1/sessions/{session}"

SESSION_OPERATIONS: Sequence[SessionOperation] = (
    SessionOperation(
        "post",
        "/v1/sessions",
        "Open",
        "Opens a session on a streamable model, from a history of any length or none.",
        "Session",
        "OpenSessionRequest",
        (_BAD, _GONE),
    ),
    SessionOperation(
        "post",
        "/v1/sessions/append",
        "Append to many",
        "Advances many sessions. Each item succeeds or fails alone.",
        "Advances",
        "AppendManyRequest",
        (_BAD,),
    ),
    SessionOperation(
        "post",
        f"{_ONE}/append",
        "Append",
        "Advances a session by observations, at a cost that does not depend on its history, and forecasts from there "
        f"if a horizon is given. The messages of the WebSocket `{_ONE}/stream` are the same bodies, with an `id`.",
        "Advance",
        "AppendRequest",
        (_BAD, _GONE, HTTPStatus.CONFLICT),
    ),
    SessionOperation(
        "post", f"{_ONE}/fork", "Fork", "Makes a second session from the same state.", "Session", None, (_GONE,)
    ),
    SessionOperation("get", _ONE, "Tell", "The session as it stands.", "Session", None, (_GONE,)),
    SessionOperation("delete", _ONE, "Close", "Ends the session.", "SessionEnd", None, (_GONE,)),
    SessionOperation(
        "get", f"{_ONE}/state", "Export", "The state of the session, signed by the server.", "", None, (_GONE,)
    ),
    SessionOperation(
        "put",
        f"{_ONE}/state",
        "Import",
        "Puts an exported state in the place of the session's, on this or another server with the same key.",
        "Session",
        "",
        (_BAD, _GONE),
    ),
)
