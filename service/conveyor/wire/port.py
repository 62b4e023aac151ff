"""The engine seam: what a front end may ask of an engine, whether it lives in this process or in another."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from conveyor.domain import ModelKey
from conveyor.wire.messages import FailureBlock, ResultBlock, RowBlock
from conveyor.wire.sessions import SessionBlock, SessionCall, SessionResults, SessionState

__all__ = [
    "ENGINE_STOPPED",
    "CostReport",
    "EnginePort",
    "EngineStats",
    "PlanReport",
    "Reply",
    "ReplySink",
    "SessionCounts",
    "Work",
]

# What an engine says that was drained.
ENGINE_STOPPED = "the engine has stopped"

# What is submitted, and what comes back.
Work = RowBlock | SessionBlock
Reply = ResultBlock | SessionResults | FailureBlock
ReplySink = Callable[[Reply], None]


@dataclass(frozen=True, slots=True)
class CostReport:
    """What a model costs now: `seconds[i][j]` for an execution of `rows[i]` rows of `steps[j]` steps.

    row_step_s: seconds of one step of one row in a full batch.
    """

    rows: Sequence[int]
    steps: Sequence[int]
    seconds: Sequence[Sequence[float]]
    row_step_s: float


@dataclass(frozen=True, slots=True)
class PlanReport:
    """How a model is executed now.

    executor, precision: what computes it, and in which arithmetic (`torch`, `float32`).
    source: what decided so: `plan.lock`, `plan.lock for cpu-amd-avx2` where that kind's plan holds here too,
        `plan.lock, float32 only`, `--precision float32`, or the reason why the reference runs.
    """

    executor: str
    device: str
    precision: str
    source: str


@dataclass(frozen=True, slots=True)
class SessionCounts:
    """The sessions of a model in one engine.

    live: sessions that can be used, wherever their state lies.
    state_bytes: memory that is held for states, by tier (`device`, `host`).
    evicted: sessions that were ended by the engine since it began, by reason (`idle`, `unloaded`).
    moved: states that were moved since it began, by where they went (`host`, `disk`, `device`).
    """

    live: int
    state_bytes: Mapping[str, int]
    evicted: Mapping[str, int]
    moved: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class EngineStats:
    """The engine as it stands.

    queued_rows: rows that wait or are run in chunks, by model.
    device_memory_bytes: by kind (`weights`, `allocated`).
    engines: how many share the work.
    sessions: by model, of those that were asked for sessions.
    """

    device: str
    queued_rows: Mapping[ModelKey, int]
    device_memory_bytes: Mapping[str, int]
    costs: Mapping[ModelKey, CostReport]
    plans: Mapping[ModelKey, PlanReport]
    engines: int = 1
    sessions: Mapping[ModelKey, SessionCounts] = field(default_factory=dict)


class EnginePort(Protocol):
    """An engine as a front end sees it. Every call may be made from the front end's event loop and none blocks it.

    Every row given to `submit` ends in exactly one entry of one `Reply`, whatever happens to the engine; only rows
    that were cancelled may end in none. Replies reach `sink` on the front end's event loop.
    """

    def connect(self, sink: ReplySink) -> None:
        """Sets where replies go. Called once, on the event loop, before any other call."""

    def submit(self, block: Work) -> None:
        """Queues the rows of a block. A model that is not loaded fails them with `NotFound`, a full queue with
        `QueueFull`."""

    def cancel(self, ids: Collection[int]) -> None:
        """Drops rows nobody waits for any more. Those already running are computed and their answers dropped."""

    def session(self, call: SessionCall) -> Awaitable[SessionState]:
        """Does what a call asks with a session as its last finished row left it. A session that is opened or forked
        must have a key for which `engine_of` names the engine that has the other.

        Raises:
            NotFound: There is no such session.
            ConveyorError: It can't be done; the message says why.
        """

    def load(self, key: ModelKey, directory: Path) -> Awaitable[None]:
        """Loads and warms a package.

        Raises:
            PackageError: The package's weights do not fit its `model.toml`.
        """

    def unload(self, key: ModelKey) -> Awaitable[None]:
        """Forgets a model and frees its memory; rows of it that still wait fail with `Unavailable`."""

    def stats(self) -> Awaitable[EngineStats]:
        """The engine as of now."""

    def drain(self) -> Awaitable[None]:
        """Finishes what was accepted, refuses what is new with `Unavailable`, then stops the engine."""
