"""The one table from errors to HTTP answers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from conveyor.api.rest.answers import ERROR, ErrorBody
from conveyor.api.shown import clamp
from conveyor.errors import (
    Aborted,
    Cancelled,
    ConveyorError,
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    NotFound,
    PayloadTooLarge,
    PermissionDenied,
    QueueFull,
    Unauthenticated,
    Unavailable,
)

__all__ = ["CLIENT_CLOSED_REQUEST", "STATUS", "error_response", "request_error", "routing_error"]

# Not a registered status: nginx's, for a connection closed by the caller. Nobody receives it; proxies log it.
CLIENT_CLOSED_REQUEST = 499

# Every leaf of the error tree but PackageError, which is about a package and never a request.
STATUS: Mapping[type[ConveyorError], int] = {
    InvalidArgument: HTTPStatus.BAD_REQUEST,
    Unauthenticated: HTTPStatus.UNAUTHORIZED,
    PermissionDenied: HTTPStatus.FORBIDDEN,
    NotFound: HTTPStatus.NOT_FOUND,
    Aborted: HTTPStatus.CONFLICT,
    PayloadTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    QueueFull: HTTPStatus.TOO_MANY_REQUESTS,
    Cancelled: CLIENT_CLOSED_REQUEST,
    Internal: HTTPStatus.INTERNAL_SERVER_ERROR,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    DeadlineExceeded: HTTPStatus.GATEWAY_TIMEOUT,
}


def error_response(
    error: ConveyorError, *, status: int | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """Answers an error with the one error body, and the headers that tell a client when to come back.

    Args:
        status: Instead of the table's, for what only HTTP knows, such as 405.
    """
    all_headers = dict(headers or {})
    if error.retryable:
        all_headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s or 1)))
    if isinstance(error, (PayloadTooLarge, Unavailable)):
        # The rest of a body that is too large is never read; a server that is unavailable wants the client elsewhere.
        all_headers["Connection"] = "close"
    return Response(
        ERROR.dump_json(
            ErrorBody(clamp(error.message), error.code, None if error.field is None else clamp(error.field)),
            exclude_none=True,
        ),
        status_code=STATUS[type(error)] if status is None else status,
        headers=all_headers,
        media_type="application/json",
    )


async def request_error(_: Request, error: Exception) -> Response:
    """Answers what a route refused; an exception handler."""
    assert isinstance(error, ConveyorError)
    return error_response(error)


async def routing_error(request: Request, error: Exception) -> Response:
    """Gives the framework's own refusals the body of every other error; an exception handler."""
    assert isinstance(error, HTTPException)
    path = request.url.path
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = (error.headers or {}).get("Allow", "")
        refusal: ConveyorError = InvalidArgument(f"{request.method} is not accepted on {path}; accepted are: {allowed}")
    elif error.status_code == HTTPStatus.NOT_FOUND:
        refusal = NotFound(f"there is nothing at {path}")
    else:
        refusal = InvalidArgument(str(error.detail))
    return error_response(refusal, status=error.status_code, headers=error.headers)
