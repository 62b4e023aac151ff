"""The end of a request's time, and of a request that ends before it."""

from __future__ import annotations

import asyncio
import math
import time
from types import TracebackType
from typing import Final, Self

from conveyor.errors import ConveyorError, DeadlineExceeded

__all__ = ["LONGEST_TIMEOUT_S", "Lifetime"]

# No request takes longer, whatever its caller asks for: a body may otherwise be sent for ever. Timers have bounds too.
LONGEST_TIMEOUT_S: Final = 3600.0


class Lifetime:
    """Cancels its block at `deadline`, in monotonic seconds (`inf` is never), or when `end` is called; then raises why.

    A block that ends by itself, or by a cancellation that is not ours, is left as it is. Event loop only.
    One timer and no task: every request is in one.

    Raises:
        DeadlineExceeded: The deadline passed inside the block.
        ConveyorError: What `end` was called with.
    """

    __slots__ = ("_cancelling", "_deadline", "_reason", "_task", "_timer")

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._task: asyncio.Task[object] | None = None
        self._reason: ConveyorError | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None, "a request is answered in a task"
        self._task = task
        self._cancelling = task.cancelling()
        if math.isfinite(self._deadline):
            # Deadlines are on the system's clock, and the loop's need not be that one.
            remaining_s = max(0.0, self._deadline - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(remaining_s, self.expire)
        return self

    def end(self, reason: ConveyorError) -> None:
        """Ends the block; of several reasons the first counts, and after the block nothing happens.

        Not to be called by the block itself.
        """
        if self._task is not None and self._reason is None:
            self._reason = reason
            self._task.cancel()

    def expire(self) -> None:
        """Ends the block because its time is up."""
        self.end(DeadlineExceeded("the deadline passed before the answer"))

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        if self._timer is not None:
            self._timer.cancel()
        # As `asyncio.timeout` does: where somebody else has cancelled the task as well, theirs goes on.
        ours = self._reason is not None and task is not None and task.uncancel() <= self._cancelling
        if ours and self._reason is not None and kind is asyncio.CancelledError:
            raise self._reason from fault
