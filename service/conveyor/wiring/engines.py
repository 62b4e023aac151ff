"""The engine in this process, for whoever owns a device: the server, a process of it, or a command."""

from __future__ import annotations

import os
import secrets
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from conveyor.engine.batching.backlog import BacklogLimits
from conveyor.engine.batching.policy import BatchLimits
from conveyor.engine.inline import InlineEngine
from conveyor.engine.local import LocalEngine
from conveyor.engine.sessions.options import IN_MEMORY, SessionOptions
from conveyor.settings import ServeSettings
from conveyor.telemetry.metrics import Metrics
from conveyor.wire.messages import BatchReport
from conveyor.wire.port import EngineStats, SessionCounts

__all__ = [
    "choose_state_key",
    "count_batch",
    "count_sessions",
    "engine_lost",
    "inline_engine",
    "local_engine",
    "session_options",
]

if TYPE_CHECKING:
    from conveyor.engine.executors.torch_executor import TorchExecutor

_log = structlog.get_logger(__name__)

# oneDNN keeps what it built for every shape it meets; unbounded, memory grows with each new shape.
_PRIMITIVES_KEPT = "256"

_KEY_BYTES = 32


def local_engine(
    settings: ServeSettings, on_lost: Callable[[str], None], sessions: SessionOptions = IN_MEMORY
) -> LocalEngine:
    """An engine on a thread of this process, which does other work beside it."""
    return LocalEngine(lambda: _make_executor(settings), *_limits(settings), on_lost, sessions)


def inline_engine(settings: ServeSettings, on_lost: Callable[[str], None], sessions: SessionOptions) -> InlineEngine:
    """An engine that has this process and its event loop to itself.

    Raises:
        ValueError: The device does not exist here.
    """
    return InlineEngine(_make_executor(settings), *_limits(settings), on_lost, sessions)


def choose_state_key(settings: ServeSettings) -> bytes:
    """The key that signs exported states: one for all processes of the server."""
    if settings.state_key is not None:
        return settings.state_key.get_secret_value().encode()
    _log.info("exported sessions are signed with a random key; set CONVEYOR_STATE_KEY to move them between servers")
    return secrets.token_bytes(_KEY_BYTES)


def session_options(settings: ServeSettings, state_key: bytes, engine: int = 0, num_engines: int = 1) -> SessionOptions:
    """What one of the server's engines is told about sessions: its share of what the settings give all of them."""
    return SessionOptions(
        idle_s=settings.session_idle_s,
        device_bytes=settings.session_memory // num_engines,
        host_bytes=settings.session_host_memory // num_engines,
        quota=-(-settings.session_quota // num_engines),
        values=settings.queue_size,
        state_key=state_key,
        state_dir=settings.state_dir,
        checkpoint_s=settings.session_checkpoint_s,
        engine=engine,
        num_engines=num_engines,
    )


def _limits(settings: ServeSettings) -> tuple[BacklogLimits, BatchLimits]:
    return (
        BacklogLimits(rows=settings.queue_rows, steps=settings.queue_size),
        BatchLimits(rows=settings.batch_rows, padded_steps=settings.batch_steps),
    )


def count_batch(metrics: Metrics, report: BatchReport) -> None:
    """Counts an execution."""
    metrics.batch(
        report.model.name,
        report.queue_s,
        report.compute_s,
        report.rows,
        report.useful_steps,
        report.padding_steps,
    )


def count_sessions(metrics: Metrics, stats: EngineStats) -> None:
    """Takes over how many sessions an engine has, and what became of them."""
    by_name: dict[str, list[SessionCounts]] = {}
    for key, counts in stats.sessions.items():
        by_name.setdefault(key.name, []).append(counts)
    for name, versions in by_name.items():
        total: dict[str, Counter[str]] = {kind: Counter() for kind in ("state_bytes", "evicted", "moved")}
        for counts in versions:
            for kind, values in total.items():
                values.update(getattr(counts, kind))
        metrics.sessions(name, sum(counts.live for counts in versions), **total)


def engine_lost(reason: str) -> None:
    """For commands that end with their work: every row was failed already, so the command reports it and ends."""
    _log.error("the engine was lost", reason=reason)


def _make_executor(settings: ServeSettings) -> TorchExecutor:
    """Imports torch, where the engine runs and in no other place."""
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", _PRIMITIVES_KEPT)
    from conveyor.engine.executors.planned import open_executor

    return open_executor(settings.device, settings.precision)
