"""The engine in this process, for whoever owns a device: the server, a process of it, or a command."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from conveyor.engine.batching.backlog import BacklogLimits
from conveyor.engine.batching.policy import BatchLimits
from conveyor.engine.inline import InlineEngine
from conveyor.engine.local import LocalEngine
from conveyor.settings import ServeSettings
from conveyor.telemetry.metrics import Metrics
from conveyor.wire.messages import BatchReport

__all__ = ["count_batch", "engine_lost", "inline_engine", "local_engine"]

if TYPE_CHECKING:
    from conveyor.engine.executors.torch_executor import TorchExecutor

_log = structlog.get_logger(__name__)

# oneDNN keeps what it built for every shape it meets; unbounded, memory grows with each new shape.
_PRIMITIVES_KEPT = "256"


def local_engine(settings: ServeSettings, on_lost: Callable[[str], None]) -> LocalEngine:
    """An engine on a thread of this process, which does other work beside it."""
    return LocalEngine(lambda: _make_executor(settings), *_limits(settings), on_lost)


def inline_engine(settings: ServeSettings, on_lost: Callable[[str], None]) -> InlineEngine:
    """An engine that has this process and its event loop to itself.

    Raises:
        ValueError: The device does not exist here.
    """
    return InlineEngine(_make_executor(settings), *_limits(settings), on_lost)


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


def engine_lost(reason: str) -> None:
    """For commands that end with their work: every row was failed already, so the command reports it and ends."""
    _log.error("the engine was lost", reason=reason)


def _make_executor(settings: ServeSettings) -> TorchExecutor:
    """Imports torch, where the engine runs and in no other place."""
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", _PRIMITIVES_KEPT)
    from conveyor.engine.executors.planned import open_executor

    return open_executor(settings.device, settings.precision)
