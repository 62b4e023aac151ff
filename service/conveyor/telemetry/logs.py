"""Structured logs on standard error: JSON lines, or coloured ones where a person looks on."""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog

from conveyor.errors import Code

__all__ = ["Level", "configure", "log_request"]

Level = Literal["debug", "info", "warning", "error"]

_HANDLER = "conveyor"
# Run for our own lines and for those of the standard library alike. Tracebacks are plain text: the renderers that
# show local variables would write requests and keys into the log.
_SHARED: tuple[structlog.typing.Processor, ...] = (
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.ExtraAdder(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
)

_requests: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger("conveyor.requests")


def configure(level: Level) -> None:
    """Sends every log line of the process, structlog's and the standard library's, to standard error.

    One JSON object a line, unless standard error is a terminal. Calling it again replaces the earlier setting.
    Servers that set up loggers of their own must be told not to (`uvicorn.Config(log_config=None)`).
    """
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.set_name(_HANDLER)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *(_terminal() if sys.stderr.isatty() else _json()),
            ],
        )
    )
    root = logging.getLogger()
    for old in [old for old in root.handlers if old.get_name() == _HANDLER]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())


def log_request(
    *,
    request_id: str,
    task: str,
    model: str,
    version: str,
    protocol: str,
    code: Code,
    duration_s: float,
    queue_s: float | None = None,
    compute_s: float | None = None,
) -> None:
    """Writes the one line of a request that ended; a fault of the server at level error, anything else at info.

    Durations are rounded to microseconds; those not known are left out.
    """
    durations = {"duration_s": duration_s, "queue_s": queue_s, "compute_s": compute_s}
    _requests.log(
        logging.ERROR if code is Code.INTERNAL else logging.INFO,
        "request",
        request_id=request_id,
        task=task,
        model=model,
        version=version,
        protocol=protocol,
        code=code.value,
        **{name: round(seconds, 6) for name, seconds in durations.items() if seconds is not None},
    )


def _json() -> list[structlog.typing.Processor]:
    return [
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(),
    ]


def _terminal() -> list[structlog.typing.Processor]:
    # Values are shown quoted, so that what a client sent cannot carry control sequences to the terminal.
    return [
        structlog.dev.ConsoleRenderer(
            repr_native_str=True, exception_formatter=structlog.dev.plain_traceback, sort_keys=False
        )
    ]
