"""Blocks about sessions, and an engine with its thread taken away to send them to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from conveyor.domain import ModelKey
from conveyor.engine.batching.backlog import BacklogLimits
from conveyor.engine.batching.costs import uniform_costs
from conveyor.engine.batching.policy import BatchLimits
from conveyor.engine.executors.port import Executor
from conveyor.engine.loop import EngineLoop
from conveyor.engine.sessions.options import SessionOptions
from conveyor.wire.messages import FailureBlock, ResultBlock
from conveyor.wire.port import Reply
from conveyor.wire.sessions import NO_EXPECTATION, SessionBlock, SessionResults
from support.executors import FakeClock

__all__ = ["Answered", "Ask", "SessionEngine", "block", "key", "take_answers"]


def key(number: int) -> bytes:
    """The key of a session: that of a number."""
    return number.to_bytes(16, "little")


@dataclass(frozen=True, slots=True, eq=False)
class Ask:
    """A row of a block. values: [steps, features]."""

    id: int
    session: bytes
    values: npt.NDArray[np.float64]
    opens: bool = False
    start: str = ""
    forecast: bool = False
    expected: int = NO_EXPECTATION
    deadline: float = math.inf


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """What a row got: the session's steps, the forecast with what restores it (None where not asked for), or an
    error."""

    steps: int = -1
    forecast: npt.NDArray[np.float32] | None = None
    loc: npt.NDArray[np.float64] | None = None
    scale: npt.NDArray[np.float64] | None = None
    start: str = ""
    expires_in_s: float = 0.0
    error: str = ""
    message: str = ""


def block(model: ModelKey, asks: Sequence[Ask]) -> SessionBlock:
    """Rows as they cross the seam."""
    return SessionBlock(
        model,
        ids=np.array([ask.id for ask in asks], dtype=np.int64),
        sessions=np.frombuffer(b"".join(ask.session for ask in asks), dtype=np.uint8).reshape(-1, 16),
        opens=np.array([ask.opens for ask in asks]),
        deadlines=np.array([ask.deadline for ask in asks]),
        expected=np.array([ask.expected for ask in asks], dtype=np.int64),
        forecasts=np.array([ask.forecast for ask in asks]),
        lengths=np.array([len(ask.values) for ask in asks], dtype=np.int32),
        values=np.concatenate([ask.values for ask in asks]).astype(np.float64),
        starts=[ask.start for ask in asks],
    )


def take_answers(reply: Reply) -> dict[int, Answered]:
    """The answers of a reply, by row."""
    if isinstance(reply, FailureBlock):
        return {row_id: Answered(error=reply.error, message=reply.message) for row_id in reply.ids}
    assert isinstance(reply, SessionResults)
    found = {
        row_id: Answered(steps, expires_in_s=expires)
        for row_id, steps, expires in zip(
            reply.ids.tolist(), reply.steps.tolist(), reply.expires_in_s.tolist(), strict=True
        )
    }
    for index, row in enumerate(reply.forecast_rows.tolist()):
        row_id = int(reply.ids[row])
        found[row_id] = Answered(
            found[row_id].steps,
            reply.forecasts[index],
            reply.loc[index],
            reply.scale[index],
            reply.starts[index],
            found[row_id].expires_in_s,
        )
    assert len(reply.forecasts) == len(reply.forecast_rows) == len(reply.starts)
    assert len(reply.report.queue_s) == len(reply.ids)
    return found


@dataclass
class SessionEngine:
    """An engine loop that runs when told to, on a clock that moves when told to; answers of rows are dropped."""

    executor: Executor
    model: ModelKey
    options: SessionOptions = field(default_factory=SessionOptions)
    clock: FakeClock = field(default_factory=FakeClock)

    def __post_init__(self) -> None:
        self.answers: dict[int, Answered] = {}
        self.loop: EngineLoop = EngineLoop(
            self.executor,
            BacklogLimits(rows=1000, steps=10**6),
            BatchLimits(),
            self._reply,
            self.clock,
            measure=lambda *_: uniform_costs(row_step_s=1e-6, call_s=1e-4),
            sessions=self.options,
        )

    def _reply(self, reply: Reply) -> None:
        if isinstance(reply, ResultBlock):
            return
        for row_id, answer in take_answers(reply).items():
            assert row_id not in self.answers, f"row {row_id} was answered twice"
            self.answers[row_id] = answer

    def ask(self, *asks: Ask) -> None:
        """Sends rows in one block."""
        self.loop.submit(block(self.model, asks))

    def run(self, most: int = 10**6) -> None:
        """Runs until nothing is left to do, or so many executions."""
        for _ in range(most):
            if self.loop.idle:
                return
            self.loop.step()

    def now(self, *asks: Ask) -> list[Answered]:
        """Sends rows and runs; their answers in order."""
        self.ask(*asks)
        self.run()
        return [self.answers[ask.id] for ask in asks]
