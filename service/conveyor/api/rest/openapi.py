"""What `/openapi.json` says about bodies: the schemas that check requests, and those of the answers."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter

from conveyor.api.priority import PRIORITY_HEADER, PRIORITY_NAMES
from conveyor.api.rest.answers import ERROR, FORECAST_ANSWER, HEALTH, MODEL, MODEL_LIST, SENTIMENT_ANSWER, TAG_ANSWER
from conveyor.api.rest.bodies import ForecastBody, SentimentBody, TagBody, TaskBody
from conveyor.api.rest.session_openapi import SESSION_ADAPTERS, SESSION_OPERATIONS, SessionOperation

__all__ = ["describe", "errors_documentation", "service_documentation"]

# The requests of the tasks, whose routes FastAPI does not know.
_TASK_BODIES: Mapping[str, type[TaskBody]] = {"sentiment": SentimentBody, "tag": TagBody, "forecast": ForecastBody}

_ADAPTERS: Mapping[str, TypeAdapter[Any]] = {
    **{f"{task.capitalize()}Request": TypeAdapter(body) for task, body in _TASK_BODIES.items()},
    "SentimentAnswer": SENTIMENT_ANSWER,
    "TagAnswer": TAG_ANSWER,
    "ForecastAnswer": FORECAST_ANSWER,
    "ModelList": MODEL_LIST,
    "Model": MODEL,
    **SESSION_ADAPTERS,
    "Health": HEALTH,
    "Error": ERROR,
}

_REFERENCES, _SHARED = TypeAdapter.json_schemas(
    [(name, "validation", adapter) for name, adapter in _ADAPTERS.items()],
    ref_template="#/components/schemas/{model}",
)

_ANSWER_EXAMPLES: Mapping[str, object] = {
    "SentimentAnswer": {
        "model": "sentiment-en",
        "version": "1",
        "results": [{"label": "positive", "score": 0.8125, "scores": {"negative": 0.1875, "positive": 0.8125}}],
    },
    "TagAnswer": {
        "model": "ner-en",
        "version": "1",
        "results": [
            {
                "tokens": [
                    {"text": "Anna", "start": 0, "end": 4, "tag": "B-PER", "score": 0.96875},
                    {"text": "left", "start": 5, "end": 9, "tag": "O", "score": 0.984375},
                ],
                "spans": [{"text": "Anna", "start": 0, "end": 4, "label": "PER", "score": 0.96875}],
            }
        ],
    },
    "ForecastAnswer": {
        "model": "forecast-electricity",
        "version": "1",
        "results": [
            {
                "mean": [[4790.5], [4655.0]],
                "quantiles": {"0.1": [[4702.25], [4531.0]], "0.9": [[4881.0], [4790.75]]},
                "targets": ["demand"],
                "timestamps": ["2024-03-01T02:00:00+00:00", "2024-03-01T02:30:00+00:00"],
            }
        ],
    },
}

_ERROR_EXAMPLES: Mapping[int, tuple[str, dict[str, str]]] = {
    HTTPStatus.BAD_REQUEST: (
        "The request is wrong; the field at fault is named.",
        {"error": "inputs[3] must be a string; got null", "code": "INVALID_ARGUMENT", "field": "inputs[3]"},
    ),
    HTTPStatus.UNAUTHORIZED: (
        "No key, or an unknown one.",
        {"error": "this server needs a key", "code": "UNAUTHENTICATED"},
    ),
    HTTPStatus.FORBIDDEN: (
        "The key lacks the right.",
        {"error": "the key does not cover this model", "code": "PERMISSION_DENIED"},
    ),
    HTTPStatus.NOT_FOUND: (
        "No such model, version or session.",
        {"error": "there is no model 'sentiment-fr' here", "code": "NOT_FOUND"},
    ),
    HTTPStatus.CONFLICT: (
        "The session has other than the expected steps; nothing was applied.",
        {"error": "the session has 17 steps, not 16", "code": "ABORTED"},
    ),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: (
        "The body is over the limit.",
        {"error": "the body is too large; at most 8388608 bytes are accepted", "code": "RESOURCE_EXHAUSTED"},
    ),
    HTTPStatus.TOO_MANY_REQUESTS: (
        "The queue is full; see `Retry-After`.",
        {"error": "the queue is full; try again later", "code": "RESOURCE_EXHAUSTED"},
    ),
    HTTPStatus.INTERNAL_SERVER_ERROR: (
        "A fault of the server.",
        {"error": "the server failed; when reporting this, quote the request id 4f1c", "code": "INTERNAL"},
    ),
    HTTPStatus.SERVICE_UNAVAILABLE: (
        "Starting or draining; see `Retry-After`.",
        {"error": "the server is starting; try again in a moment", "code": "UNAVAILABLE"},
    ),
    HTTPStatus.GATEWAY_TIMEOUT: (
        "The deadline of `X-Request-Timeout` passed first.",
        {"error": "the deadline passed before the answer", "code": "DEADLINE_EXCEEDED"},
    ),
}


def errors_documentation(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Returns the `responses` of a route: the error body under each status, and under every other one."""
    documented: dict[int | str, dict[str, Any]] = {
        status: {
            "description": _ERROR_EXAMPLES[status][0],
            "content": {"application/json": {"schema": _ref("Error"), "example": _ERROR_EXAMPLES[status][1]}},
        }
        for status in statuses
    }
    documented["default"] = {
        "description": "Any other error.",
        "content": {"application/json": {"schema": _ref("Error")}},
    }
    return documented


def service_documentation(schema: str, description: str) -> dict[int | str, dict[str, Any]]:
    """Returns the `responses` of a route for a 200 whose body is one of the documented schemas."""
    content: dict[str, Any] = {"schema": _ref(schema)}
    if schema in _ANSWER_EXAMPLES:
        content["example"] = _ANSWER_EXAMPLES[schema]
    return {200: {"description": description, "content": {"application/json": content}}}


def describe(app: FastAPI) -> None:
    """Adds the tasks, and the schemas that routes refer to. The document is built once, at its first request."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            tasks = {f"/v1/{task}": {"post": _task_operation(task)} for task in _TASK_BODIES}
            document["paths"] = tasks | _session_paths() | document["paths"]
            document.setdefault("components", {}).setdefault("schemas", {}).update(_schemas())
            app.openapi_schema = document
        return app.openapi_schema

    # FastAPI's documented way to extend the document is to replace this method.
    app.openapi = openapi  # type: ignore[method-assign]


def _task_operation(task: str) -> dict[str, Any]:
    """Returns what the document says of `POST /v1/<task>`: its bodies, its headers and its errors."""
    name = task.capitalize()
    statuses = [status for status in _ERROR_EXAMPLES if status != HTTPStatus.CONFLICT]
    responses = service_documentation(f"{name}Answer", "The results, in order.") | errors_documentation(*statuses)
    return {
        "tags": ["tasks"],
        "summary": name,
        "description": _TASK_BODIES[task].__doc__,
        "operationId": f"{task}_v1_{task}_post",
        "responses": {str(status): response for status, response in responses.items()},
        "requestBody": _json_body(f"{name}Request"),
        "parameters": _PARAMETERS,
    }


def _session_paths() -> dict[str, Any]:
    paths: dict[str, dict[str, Any]] = {}
    for operation in SESSION_OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _session_operation(operation)
    return paths


def _session_operation(operation: SessionOperation) -> dict[str, Any]:
    responses = service_documentation(operation.answer, operation.description) if operation.answer else {200: _OCTETS}
    responses |= errors_documentation(*operation.errors)
    documented = {
        "tags": ["sessions"],
        "summary": operation.summary,
        "description": operation.description,
        "operationId": f"{operation.summary.lower().replace(' ', '_')}_session",
        "responses": {str(status): response for status, response in responses.items()},
        "parameters": _PARAMETERS + ([_SESSION] if "{session}" in operation.path else []),
    }
    if operation.request is not None:
        documented["requestBody"] = _json_body(operation.request) if operation.request else _OCTETS | {"required": True}
    return documented


def _json_body(schema: str) -> dict[str, Any]:
    return {
        "required": True,
        "description": "A JSON object. Of a key that is given twice, the last counts.",
        "content": {"application/json": {"schema": _ref(schema)}},
    }


_OCTETS: dict[str, Any] = {
    "description": "The state of a session.",
    "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
}

_SESSION: dict[str, Any] = {
    "name": "session",
    "in": "path",
    "required": True,
    "description": "What opening has answered.",
    "schema": {"type": "string"},
}

# The headers that every request may have.
_PARAMETERS: list[dict[str, Any]] = [
    {
        "name": "X-Request-Timeout",
        "in": "header",
        "description": "Seconds after which the answer is worth nothing to the caller.",
        "schema": {"type": "number", "exclusiveMinimum": 0},
    },
    {
        "name": PRIORITY_HEADER,
        "in": "header",
        "description": "Whether the request goes before all others, as everybody's, or when there is time.",
        "schema": {"type": "string", "enum": list(PRIORITY_NAMES)},
    },
    {
        "name": "X-Request-Id",
        "in": "header",
        "description": "1 to 128 printable ASCII characters, returned with the answer.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 128},
    },
]


def _schemas() -> dict[str, Any]:
    """The schemas that routes refer to; what may be null is not required, since answers leave out what is None."""
    schemas: dict[str, Any] = _SHARED["$defs"]
    for name in _ANSWER_EXAMPLES:
        # pydantic titles every form of the generic Answer alike.
        schemas[_ref(name)["$ref"].rpartition("/")[2]]["title"] = name
    for schema in schemas.values():
        if "required" in schema:
            schema["required"] = [
                name
                for name in schema["required"]
                if {"type": "null"} not in schema["properties"][name].get("anyOf", ())
            ]
    return schemas


def _ref(name: str) -> dict[str, Any]:
    return _REFERENCES[name, "validation"]
