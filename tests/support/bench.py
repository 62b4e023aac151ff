"""An engine loop on a clock that only executions move, and what came out of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from conveyor.domain import ModelKey
from conveyor.engine.batching.backlog import BacklogLimits
from conveyor.engine.batching.policy import BatchLimits
from conveyor.engine.loop import EngineLoop
from conveyor.wire.messages import NO_DEADLINE, NORMAL_PRIORITY, FailureBlock, ResultBlock, RowBlock
from conveyor.wire.port import Reply
from support.executors import FakeClock, SummingExecutor, SummingScan

__all__ = ["MODEL", "Bench"]

MODEL = ModelKey("m", "1")


class Bench:
    """A loop on a clock that only executions move. Rows over 256 steps are run in chunks."""

    def __init__(self, *, stepwise: bool = False, queue_rows: int = 1000, ragged: bool = False) -> None:
        self.clock = FakeClock()
        self.replies: list[Reply] = []
        self.executor = SummingExecutor(stepwise=stepwise, clock=self.clock, ragged=ragged)
        self.loop: EngineLoop[SummingScan] = EngineLoop(
            self.executor,
            BacklogLimits(rows=queue_rows, steps=1_000_000),
            BatchLimits(rows=8, padded_steps=2000, slice_s=0.0006, lane_rows=4),
            self.replies.append,
            self.clock,
        )
        self.load(MODEL)
        self.executor.batches.clear()
        self.requests = 0

    def load(self, model: ModelKey) -> None:
        """Takes a model in."""
        self.loop.load(model, Path("unused"))

    def submit(
        self,
        rows: dict[int, list[int]],
        *,
        deadline: float = NO_DEADLINE,
        model: ModelKey = MODEL,
        priority: int = NORMAL_PRIORITY,
    ) -> None:
        """One request: rows by id, one column each."""
        values = [value for row in rows.values() for value in row]
        self.requests += 1
        self.loop.submit(
            RowBlock(
                model,
                list(rows),
                [deadline] * len(rows),
                [priority] * len(rows),
                [self.requests] * len(rows),
                [len(row) for row in rows.values()],
                np.array(values, dtype=np.int32).reshape(-1, 1),
            )
        )

    def finish(self) -> None:
        """Runs until nothing waits."""
        for _ in range(100_000):
            if self.loop.idle:
                return
            self.loop.step()
        raise AssertionError("the loop does not come to an end")

    def order(self) -> list[int]:
        """Ids in the order in which they were answered."""
        return [row_id for reply in self.replies if isinstance(reply, ResultBlock) for row_id in reply.ids.tolist()]

    def answers(self) -> dict[int, list[float]]:
        """The results by id; an id that was answered twice fails the test."""
        found: dict[int, list[float]] = {}
        for reply in self.replies:
            if isinstance(reply, ResultBlock):
                sizes = reply.lengths if reply.stepwise else np.ones(len(reply.ids), dtype=int)
                for row_id, end, size in zip(reply.ids.tolist(), np.cumsum(sizes), sizes, strict=True):
                    assert row_id not in found
                    found[row_id] = reply.arrays["sum"][end - size : end].tolist()
        return found

    def failures(self) -> dict[int, str]:
        """The names of errors by id."""
        blocks = [reply for reply in self.replies if isinstance(reply, FailureBlock)]
        assert len({i for b in blocks for i in b.ids}) == sum(len(b.ids) for b in blocks)
        return {row_id: block.error for block in blocks for row_id in block.ids}
