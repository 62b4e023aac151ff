"""Structured logs on standard error: JSON lines, or coloured ones where a person looks on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from functools import lru_cache
from typing import Literal, TextIO

import msgspec
import structlog

from conveyor.errors import Code

__all__ = ["Level", "configure", "log_request"]

Level = Literal["debug", "info", "warning", "error"]

# Run for our own lines and for those of the standard library alike.
_SHARED: tuple[structlog.typing.Processor, ...] = (
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
)

_LEVELS = {name.lower(): level for name, level in logging.getLevelNamesMapping().items()}

_REQUESTS = "conveyor.requests"
_requests: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(_REQUESTS)


class _RequestLine(msgspec.Struct, omit_defaults=True, gc=False):
    """The line of a request as structlog's processors write it too, ten times as slowly."""

    request_id: str
    task: str
    model: str
    version: str
    protocol: str
    code: str
    duration_s: float
    event: str
    level: str
    logger: str
    timestamp: str = ""
    queue_s: float | None = None
    compute_s: float | None = None


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes lines that are finished, and records of the standard library. Any thread.

    Where nobody reads standard error any more lines are lost, and the server goes on.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self.writes_json = False
        self._requests: list[_RequestLine] = []
        self._encoder = msgspec.json.Encoder()
        # The one that `emit` is called under: of two locks, one thread could hold each and wait for the other.
        assert self.lock is not None
        self._writing = self.lock

    def write_line(self, line: str) -> None:
        """Writes one line."""
        with self._writing, contextlib.suppress(OSError):
            self._write_requests()
            self.stream.write(line + self.terminator)
            super().flush()

    def write_soon(self, line: _RequestLine) -> None:
        """Writes one line with the others of this tick of the event loop, at its end; at once where none runs."""
        with self._writing:
            self._requests.append(line)
            if len(self._requests) > 1:
                return
            try:
                asyncio.get_running_loop().call_soon(self.flush)
            except RuntimeError:
                self.flush()

    def flush(self) -> None:
        """Writes what waits; called too when the process ends."""
        with self._writing, contextlib.suppress(OSError):
            self._write_requests()
            super().flush()

    def _write_requests(self) -> None:
        if self._requests:
            lines, self._requests = self._requests, []
            # Of when they are written, microseconds after the last and a tick of the event loop after the first.
            now = _timestamp()
            for line in lines:
                line.timestamp = now
            self.stream.write(self._encoder.encode_lines(lines).decode())


class _LineLogger:
    """What structlog hands a finished line to.

    A logger of the standard library would make a record of it, search the stack for its caller and format the record
    again, which took most of the time of a line.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def info(self, line: str) -> None:
        _standard_error.write_line(line)

    debug = warning = error = exception = critical = info


def _is_shown(level: int) -> bool:
    """Before `configure`, and once somebody has taken its handler away, that is structlog's to say."""
    root = logging.getLogger()
    return level >= root.level or _standard_error not in root.handlers


def _drop_below_level(_: object, __: str, event_dict: structlog.typing.EventDict) -> structlog.typing.EventDict:
    if not _is_shown(_LEVELS[event_dict["level"]]):
        raise structlog.DropEvent
    return event_dict


_standard_error = _StandardError(sys.stderr)
# Changed in place: loggers that were used keep the list.
_processors: list[structlog.typing.Processor] = []


def configure(level: Level) -> None:
    """Sends every log line of the process, structlog's and the standard library's, to standard error.

    One JSON object a line, unless standard error is a terminal. Calling it again replaces the earlier setting.
    Servers that set up loggers of their own must be told not to (`uvicorn.Config(log_config=None)`).
    """
    _standard_error.writes_json = not sys.stderr.isatty()
    rendered = _json() if _standard_error.writes_json else _terminal()
    _processors[:] = [structlog.stdlib.add_log_level, _drop_below_level, *_SHARED, *rendered]
    structlog.configure(
        processors=_processors,
        logger_factory=_LineLogger,
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    _standard_error.stream = sys.stderr
    _standard_error.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=(structlog.stdlib.add_log_level, *_SHARED, structlog.stdlib.ExtraAdder()),
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendered],
        )
    )
    root = logging.getLogger()
    if _standard_error not in root.handlers:
        root.addHandler(_standard_error)
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
    level = logging.ERROR if code is Code.INTERNAL else logging.INFO
    if not _is_shown(level):
        return
    if _standard_error.writes_json:
        line = _RequestLine(
            request_id,
            task,
            model,
            version,
            protocol,
            code.value,
            _rounded(duration_s),
            "request",
            "error" if level == logging.ERROR else "info",
            _REQUESTS,
            queue_s=None if queue_s is None else _rounded(queue_s),
            compute_s=None if compute_s is None else _rounded(compute_s),
        )
        _standard_error.write_soon(line)
        return
    durations = {"duration_s": duration_s, "queue_s": queue_s, "compute_s": compute_s}
    _requests.log(
        level,
        "request",
        request_id=request_id,
        task=task,
        model=model,
        version=version,
        protocol=protocol,
        code=code.value,
        **{name: _rounded(seconds) for name, seconds in durations.items() if seconds is not None},
    )


def _rounded(seconds: float) -> float:
    """To microseconds, in a third of the time that `round` takes."""
    return int(seconds * 1e6 + 0.5) / 1e6


def _timestamp() -> str:
    """Now, as structlog's `TimeStamper` writes it."""
    now = time.time()
    second = int(now)
    return f"{_date_and_time(second)}.{int((now - second) * 1e6):06d}Z"


@lru_cache(maxsize=1)
def _date_and_time(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


# Tracebacks are plain text: the renderers that show local variables would write requests and keys into the log.
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
