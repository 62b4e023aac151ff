"""What every request meets before any work is done for it: a server that takes requests, and room in the queue."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from conveyor.domain import ModelKey
from conveyor.errors import Code, ConveyorError, DeadlineExceeded, Unavailable
from conveyor.gateway.admission import Admission, Room
from conveyor.gateway.call import Call
from conveyor.lifecycle.phase import Lifecycle, Phase
from conveyor.telemetry.metrics import Metrics

__all__ = ["Reception"]

# Outcomes that say "not now" rather than "not so": what `requests_rejected_total` counts.
_REJECTIONS = frozenset({Code.RESOURCE_EXHAUSTED, Code.DEADLINE_EXCEEDED, Code.UNAVAILABLE})


class Reception:
    """Lets requests in, or refuses and counts them. Event loop only.

    Args:
        default_timeout_s: What a request may take whose caller set no deadline.
    """

    def __init__(self, lifecycle: Lifecycle, admission: Admission, metrics: Metrics, default_timeout_s: float) -> None:
        self._lifecycle = lifecycle
        self._admission = admission
        self._metrics = metrics
        self._default_timeout_s = default_timeout_s

    def count(self, call: Call, error: ConveyorError) -> None:
        """Counts a request that is refused before any work, if it is refused for now."""
        if error.code in _REJECTIONS:
            self._metrics.rejected(call.model, error.code.lower())

    @contextmanager
    def counting(self, call: Call) -> Iterator[None]:
        """Counts what its block refuses for now as a rejection."""
        try:
            yield
        except ConveyorError as error:
            self.count(call, error)
            raise

    def check_open(self) -> None:
        """Raises Unavailable while the server takes no requests."""
        phase = self._lifecycle.phase
        if phase is Phase.READY:
            return
        if phase is Phase.STARTING:
            raise Unavailable("the server is starting; try again in a moment", retry_after_s=1.0)
        raise Unavailable("the server is shutting down; another replica may answer", retry_after_s=1.0)

    def accept(self, call: Call, key: ModelKey, rows: int, size: int) -> Room:
        """Room for a request, of so many rows and values or code points, to be held until it ends.

        Raises:
            DeadlineExceeded: Its deadline has passed, or would before the answer.
            QueueFull: There is no room now.
        """
        now = time.monotonic()
        if call.deadline == math.inf:
            call.deadline = now + self._default_timeout_s
        try:
            if call.deadline <= now:
                raise DeadlineExceeded("the deadline had passed before the request was read")
            return self._admission.admit(key, rows, size, now, call.deadline, call.priority)
        except ConveyorError as error:
            self.count(call, error)
            raise
