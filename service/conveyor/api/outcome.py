"""How a request ends, for every door: the error that is shown, the metrics, and one line in the log."""

from __future__ import annotations

import time

import structlog

from conveyor.errors import Code, ConveyorError, Internal, PackageError, Unavailable
from conveyor.gateway.call import Call
from conveyor.telemetry.logs import log_request
from conveyor.telemetry.metrics import Metrics

__all__ = ["failed", "record_message", "record_outcome", "record_stream", "show_failures", "shown_error", "stopped"]

_log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger("conveyor.api")


def shown_error(fault: Exception, request_id: str) -> ConveyorError:
    """Returns what the caller may see: a request's error as it is, and for anything else, which is logged with
    its traceback, an `Internal` that shows nothing but the request id."""
    if isinstance(fault, ConveyorError) and not isinstance(fault, (Internal, PackageError)):
        return fault
    _log.error("request failed inside the server", request_id=request_id, exc_info=fault)
    return failed(request_id)


def failed(request_id: str) -> Internal:
    """Returns what a request is told that met a fault of the server."""
    return Internal(f"the server failed; when reporting this, quote the request id {request_id}")


def show_failures(failures: dict[int, ConveyorError], request_id: str) -> None:
    """Puts what the caller may see in the place of each failure of an item; one of many items is logged once."""
    shown = {id(error): error for error in failures.values()}
    shown = {number: shown_error(error, request_id) for number, error in shown.items()}
    failures.update({item: shown[id(error)] for item, error in failures.items()})


def stopped() -> Unavailable:
    """Returns what a request is told that was not answered when the server's grace was over."""
    return Unavailable("the server stopped before the answer; another replica may give it", retry_after_s=1.0)


def record_outcome(metrics: Metrics, call: Call, code: Code, started_s: float) -> None:
    """Counts a finished request and logs it, whether it was answered, refused or abandoned.

    Args:
        started_s: Monotonic seconds at which the request arrived.
    """
    duration_s = time.monotonic() - started_s
    metrics.request(call.task, call.model, call.version, call.protocol, code, duration_s)
    log_request(
        request_id=call.request_id,
        task=call.task,
        model=call.model,
        version=call.version,
        protocol=call.protocol,
        code=code,
        duration_s=duration_s,
        queue_s=call.queue_s,
        compute_s=call.compute_s,
    )


def record_message(metrics: Metrics, call: Call, code: Code, started_s: float) -> None:
    """Counts one message of a stream as a request. It has no line in the log: there may be thousands a second."""
    metrics.request(call.task, call.model, call.version, call.protocol, code, time.monotonic() - started_s)


def record_stream(call: Call, code: Code, started_s: float) -> None:
    """Logs a stream that ended; its messages were counted one by one."""
    log_request(
        request_id=call.request_id,
        task=call.task,
        model=call.model,
        version=call.version,
        protocol=call.protocol,
        code=code,
        duration_s=time.monotonic() - started_s,
    )
