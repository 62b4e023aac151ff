"""The tree of errors that cross rooms.

    ConveyorError
    ├── InvalidArgument         the request itself is wrong
    ├── Unauthenticated         no key, or an unknown one
    ├── PermissionDenied        the key lacks the right
    ├── NotFound                no such model, version or session
    ├── Aborted                 the caller's idea of a session is out of date
    ├── PayloadTooLarge         the body is over the limit
    ├── QueueFull               no room to accept the work now
    ├── DeadlineExceeded        the answer would come, or came, too late
    ├── Cancelled               the caller went away
    ├── Unavailable             starting, draining, or the engine is lost
    ├── Internal                a fault of the server
    └── PackageError            a model package is not acceptable (never a request's fault)

The tree knows codes and whether a retry can help, not HTTP or gRPC: each door maps every leaf in one table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

__all__ = [
    "Aborted",
    "Cancelled",
    "Code",
    "ConveyorError",
    "DeadlineExceeded",
    "Internal",
    "InvalidArgument",
    "NotFound",
    "PackageError",
    "PayloadTooLarge",
    "PermissionDenied",
    "Problem",
    "QueueFull",
    "Unauthenticated",
    "Unavailable",
    "error_named",
]


class Code(StrEnum):
    """The name of an outcome, as in gRPC, on every protocol and in the metrics."""

    OK = "OK"
    CANCELLED = "CANCELLED"
    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    NOT_FOUND = "NOT_FOUND"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    ABORTED = "ABORTED"
    INTERNAL = "INTERNAL"
    UNAVAILABLE = "UNAVAILABLE"
    UNAUTHENTICATED = "UNAUTHENTICATED"


class ConveyorError(Exception):
    """An outcome other than an answer.

    Args:
        message: One sentence: what was wrong and what is accepted. Never the payload, never a secret.
        field: Where in the request, in JSON notation (`inputs[3]`, `series[0].values`).
        retry_after_s: Seconds after which a retry may succeed.
    """

    code: ClassVar[Code] = Code.INTERNAL
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, field: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.retry_after_s = retry_after_s


class InvalidArgument(ConveyorError):
    """The request is wrong and will stay wrong."""

    code = Code.INVALID_ARGUMENT


class Unauthenticated(ConveyorError):
    """No key came with the request, or one the server does not know."""

    code = Code.UNAUTHENTICATED


class PermissionDenied(ConveyorError):
    """The key is known and lacks the right."""

    code = Code.PERMISSION_DENIED


class NotFound(ConveyorError):
    """The model, version or session does not exist here."""

    code = Code.NOT_FOUND


class Aborted(ConveyorError):
    """The state moved on since the caller looked; nothing was applied."""

    code = Code.ABORTED


class PayloadTooLarge(ConveyorError):
    """The body is over the size limit; the same body never fits."""

    code = Code.RESOURCE_EXHAUSTED


class QueueFull(ConveyorError):
    """Accepting the work would exceed a bound; it may fit later."""

    code = Code.RESOURCE_EXHAUSTED
    retryable = True


class DeadlineExceeded(ConveyorError):
    """The caller's deadline passed before the answer."""

    code = Code.DEADLINE_EXCEEDED


class Cancelled(ConveyorError):
    """The caller went away; nobody waits for the answer."""

    code = Code.CANCELLED


class Unavailable(ConveyorError):
    """The server, or this model, does not take work now."""

    code = Code.UNAVAILABLE
    retryable = True


class Internal(ConveyorError):
    """The server failed; the message shows no internals."""

    code = Code.INTERNAL


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a package: the file, the field in it ("" for the whole file), and what is accepted."""

    file: str
    field: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}: {self.field}" if self.field else self.file
        return f"{where}: {self.message}"


class PackageError(ConveyorError):
    """A model package is refused; `problems` lists every reason."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


_BY_NAME = {kind.__name__: kind for kind in ConveyorError.__subclasses__()}


def error_named(name: str) -> type[ConveyorError]:
    """The class of the tree by its name, as it crosses between processes; `Internal` for any other name."""
    return _BY_NAME.get(name, Internal)
