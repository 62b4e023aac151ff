"""One request as a door hands it in."""

from __future__ import annotations

from dataclasses import dataclass

from conveyor.spec import Task
from conveyor.wire.messages import NORMAL_PRIORITY

__all__ = ["Call"]

UNKNOWN = "unknown"


@dataclass(slots=True)
class Call:
    """What a request is besides its content.

    deadline: monotonic seconds after which the answer is worth nothing; `inf` if the caller set none, until the
        gateway sets the server's own.
    priority: one of `wire.messages.PRIORITIES`.
    model, version: filled by the gateway once resolved; `unknown` until then, as in the metrics.
    queue_s, compute_s: filled by the gateway: the longest wait and the longest execution among the request's rows.
    """

    task: Task
    protocol: str
    request_id: str
    deadline: float
    priority: int = NORMAL_PRIORITY
    model: str = UNKNOWN
    version: str = UNKNOWN
    queue_s: float = 0.0
    compute_s: float = 0.0
