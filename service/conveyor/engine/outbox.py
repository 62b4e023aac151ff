"""The one way out of the engine: every row that is worked on leaves in exactly one reply."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from conveyor.domain import ModelKey
from conveyor.errors import Internal
from conveyor.wire.messages import FailureBlock
from conveyor.wire.port import Reply

__all__ = ["Outbox"]

_log = structlog.get_logger(__name__)


class Outbox:
    """Sends replies, and knows the rows that are in no queue while they are worked on, and not yet answered.

    Args:
        reply: Takes each answer; must not block.
    """

    def __init__(self, reply: Callable[[Reply], None]) -> None:
        self._reply = reply
        self._model: ModelKey | None = None
        self._under_way: set[int] = set()

    def work_on(self, model: ModelKey, ids: Sequence[int]) -> None:
        """These rows, and no others, are in an execution from now on."""
        self._model, self._under_way = model, set(ids)

    def put_down(self) -> None:
        """No row is in an execution any more: what was not answered stands in a queue or in a lane."""
        self._under_way.clear()

    def under_way(self, model: ModelKey) -> list[int]:
        """The rows in an execution that are not answered."""
        return list(self._under_way) if model == self._model else []

    def send(self, reply: Reply) -> None:
        """An answer leaves."""
        self._under_way.difference_update(reply.ids if isinstance(reply, FailureBlock) else reply.ids.tolist())
        self._reply(reply)

    def fail(self, model: ModelKey, ids: Sequence[int], error: type[Exception], message: str) -> None:
        """Rows end without an answer, if there are any."""
        if ids:
            self.send(FailureBlock(model, ids, error.__name__, message))

    def report_fault(self, model: ModelKey, ids: Sequence[int], error: Exception) -> None:
        """Fails rows for whatever an executor raised; the engine goes on."""
        _log.error("rows failed", model=model.name, version=model.version, rows=len(ids), exc_info=error)
        self.fail(model, ids, Internal, "the model failed on this input")
