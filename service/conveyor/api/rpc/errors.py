"""The one table from errors to gRPC statuses, and the trailing metadata that explains them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import grpc
from google.rpc import error_details_pb2, status_pb2

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

__all__ = ["REQUEST_ID_KEY", "STATUS", "Metadata", "error_metadata"]

Metadata = tuple[tuple[str, str | bytes], ...]

REQUEST_ID_KEY = "x-request-id"

# Every leaf of the error tree but PackageError, which is about a package and never a request.
STATUS: Mapping[type[ConveyorError], grpc.StatusCode] = {
    InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    NotFound: grpc.StatusCode.NOT_FOUND,
    Aborted: grpc.StatusCode.ABORTED,
    PayloadTooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    QueueFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Cancelled: grpc.StatusCode.CANCELLED,
    Internal: grpc.StatusCode.INTERNAL,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
}


def error_metadata(error: ConveyorError, request_id: str) -> Metadata:
    """Returns the trailing metadata of an error: the request id, the details, and when to come back.

    The pushback is that of gRFC A6: milliseconds until a retry may succeed, -1 where none ever will.
    """
    metadata: list[tuple[str, str | bytes]] = [
        (REQUEST_ID_KEY, request_id),
        ("grpc-status-details-bin", _details(error, request_id).SerializeToString()),
    ]
    if isinstance(error, PayloadTooLarge):
        metadata.append(("grpc-retry-pushback-ms", "-1"))
    elif error.retryable:
        metadata.append(("grpc-retry-pushback-ms", str(math.ceil(1000 * (error.retry_after_s or 1)))))
    return tuple(metadata)


def _details(error: ConveyorError, request_id: str) -> status_pb2.Status:
    """The status with its details. grpcio-status would only copy it into the metadata, which takes one line."""
    number, _ = STATUS[type(error)].value
    message = clamp(error.message)
    status = status_pb2.Status(code=number, message=message)
    if error.field is not None:
        violation = error_details_pb2.BadRequest.FieldViolation(field=clamp(error.field), description=message)
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    status.details.add().Pack(error_details_pb2.RequestInfo(request_id=request_id))
    return status
