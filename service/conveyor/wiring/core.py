"""An engine, its gateway and its models, without doors: what serving, checking and offline inference share."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from conveyor.engine.batching.backlog import BacklogLimits
from conveyor.engine.batching.policy import BatchLimits
from conveyor.engine.local import LocalEngine
from conveyor.gateway.admission import Admission
from conveyor.gateway.answering import Answering
from conveyor.gateway.catalogue import Catalogue
from conveyor.gateway.dispatcher import Dispatcher
from conveyor.gateway.gateway import Gateway
from conveyor.gateway.limits import Limits
from conveyor.gateway.loader import Loader
from conveyor.lifecycle.phase import Lifecycle, Phase
from conveyor.repository.layout import scan
from conveyor.settings import ServeSettings
from conveyor.telemetry.metrics import Metrics
from conveyor.wire.messages import BatchReport
from conveyor.wire.port import EnginePort

__all__ = ["Core", "build_core", "engine_lost"]

if TYPE_CHECKING:
    from conveyor.engine.executors.torch_executor import TorchExecutor

_log = structlog.get_logger(__name__)

# oneDNN keeps what it built for every shape it meets; unbounded, memory grows with each new shape.
_PRIMITIVES_KEPT = "256"

# What each choice of `--precision` means today: packages do not carry a measured plan yet, and without one a model
# runs the reference.
_PRECISIONS = {"auto": "float32", "float32": "float32"}


@dataclass(frozen=True, slots=True)
class Core:
    """The parts that a command puts doors, or a loop over a file, in front of."""

    engine: EnginePort
    catalogue: Catalogue
    loader: Loader
    gateway: Gateway
    admission: Admission
    lifecycle: Lifecycle
    metrics: Metrics
    limits: Limits
    precision: str

    async def start(self) -> None:
        """Waits until the engine has its device, and says which."""
        stats = await self.engine.stats()
        self.catalogue.plan.update(executor="torch", device=stats.device, precision=self.precision)
        self.metrics.build(version("conveyor"), version("torch"), stats.device)

    async def load_models(self, models: Path, only: str | None = None) -> None:
        """Loads every version of every model of a directory, or of one model, highest versions first.

        Raises:
            PackageError: The directory can't be read.
        """
        layout = scan(models)
        for problem in layout.problems:
            _log.warning("ignored in the models directory", file=problem.file, reason=problem.message)
        for name, versions in layout.versions.items():
            if only is None or name == only:
                for key, directory in versions.items():
                    await self.loader.load(key, directory)
        await self.refresh()

    async def refresh(self) -> None:
        """Takes over what only the engine knows: prices, cost tables, gauges."""
        stats = await self.engine.stats()
        for key, costs in stats.costs.items():
            self.admission.set_price(key, costs.row_step_s)
        self.catalogue.costs = stats.costs
        depth: Counter[str] = Counter()
        for key, rows in stats.queued_rows.items():
            depth[key.name] += rows
        for name, rows in depth.items():
            self.metrics.queue_depth(name, rows)
        for kind, num_bytes in stats.device_memory_bytes.items():
            self.metrics.device_memory(stats.device, kind, num_bytes)


def build_core(settings: ServeSettings, on_lost: Callable[[str], None]) -> Core:
    """Puts the parts together; call on the event loop that will run them.

    Args:
        on_lost: Called with the reason if the engine dies; nothing can be answered from then on.
    """
    lifecycle = Lifecycle()
    metrics = Metrics()
    limits = Limits(
        body_bytes=settings.max_body_bytes,
        items=settings.max_items,
        text_code_points=settings.max_text,
        series_values=settings.max_values,
        request_timeout_s=settings.request_timeout,
    )
    engine = LocalEngine(
        lambda: _make_executor(settings.device),
        BacklogLimits(rows=settings.queue_rows, steps=settings.queue_size),
        BatchLimits(rows=settings.batch_rows, padded_steps=settings.batch_steps),
        on_lost,
    )
    catalogue = Catalogue(
        defaults={
            "sentiment": settings.default_sentiment,
            "tag": settings.default_tag,
            "forecast": settings.default_forecast,
        },
        plan={},
    )

    admission = Admission(settings.queue_rows, settings.queue_size, settings.batch_rows)

    def observe(report: BatchReport) -> None:
        # What is computed before requests are let in is the replay of samples: no traffic, and no metric.
        if lifecycle.phase is Phase.STARTING:
            return
        if not report.in_chunks:
            admission.observe(report.model, report.useful_steps, report.compute_s)
        metrics.batch(
            report.model.name,
            report.queue_s,
            report.compute_s,
            report.rows,
            report.useful_steps,
            report.padding_steps,
        )

    answering = Answering(Dispatcher(engine, observe), admission, limits)
    gateway = Gateway(catalogue, answering, admission, lifecycle, metrics, limits)
    loader = Loader(engine, answering, catalogue, metrics)
    return Core(
        engine, catalogue, loader, gateway, admission, lifecycle, metrics, limits, _PRECISIONS[settings.precision]
    )


def engine_lost(reason: str) -> None:
    """For commands that end with their work: every row was failed already, so the command reports it and ends."""
    _log.error("the engine was lost", reason=reason)


def _make_executor(device: str) -> TorchExecutor:
    """Imports torch, on the engine's thread and in no other room of a front end."""
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", _PRIMITIVES_KEPT)
    from conveyor.engine.executors.torch_executor import TorchExecutor

    return TorchExecutor(device)
