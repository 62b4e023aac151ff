"""An engine, its gateway and its models, without doors: what serving, checking and offline inference share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import structlog

from conveyor.engine.sessions.options import IN_MEMORY, SessionOptions
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
from conveyor.telemetry.metrics import Metrics, Scrape
from conveyor.wire.messages import BatchReport
from conveyor.wire.port import EnginePort
from conveyor.wiring.engines import count_batch, count_sessions, local_engine

__all__ = ["Core", "assemble", "build_core"]

_log = structlog.get_logger(__name__)


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
    scrape: Scrape
    has_engine: bool

    async def start(self) -> str:
        """Waits until the engine has its device, and returns its name."""
        stats = await self.engine.stats()
        self.metrics.build(version("conveyor"), version("torch"), stats.device)
        return stats.device

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
        """Takes over what only the engine knows: prices, cost tables, plans, gauges."""
        stats = await self.engine.stats()
        for key, costs in stats.costs.items():
            self.admission.set_price(key, costs.row_step_s / stats.engines)
        self.catalogue.costs, self.catalogue.plans = stats.costs, stats.plans
        for key, plan in stats.plans.items():
            self.metrics.model_plan(key, plan.executor, plan.device, plan.precision)
        if self.has_engine:
            count_sessions(self.metrics, stats)
        depth: Counter[str] = Counter()
        for key, rows in stats.queued_rows.items():
            depth[key.name] += rows
        for name, rows in depth.items():
            self.metrics.queue_depth(name, rows)
        for kind, num_bytes in stats.device_memory_bytes.items():
            self.metrics.device_memory(stats.device, kind, num_bytes)


def build_core(settings: ServeSettings, on_lost: Callable[[str], None], sessions: SessionOptions = IN_MEMORY) -> Core:
    """Puts the parts together, the engine in this process; call on the event loop that will run them.

    Args:
        on_lost: Called with the reason if the engine dies; nothing can be answered from then on.
        sessions: What the engine is told about streaming sessions.
    """
    metrics = Metrics()
    return assemble(settings, local_engine(settings, on_lost, sessions), metrics, metrics.scrape, has_engine=True)


def assemble(
    settings: ServeSettings,
    engine: EnginePort,
    metrics: Metrics,
    scrape: Scrape,
    *,
    has_engine: bool,
    num_engines: int = 1,
) -> Core:
    """Puts the parts before an engine together; call on the event loop that will run them.

    Args:
        scrape: Gives the metrics of the whole server.
        has_engine: Whether the engine is in this process, and what it does is counted here; if not, its own does it.
        num_engines: How many the port stands for.
    """
    lifecycle = Lifecycle()
    limits = Limits(
        body_bytes=settings.max_body_bytes,
        items=settings.max_items,
        text_code_points=settings.max_text,
        series_values=settings.max_values,
        request_timeout_s=settings.request_timeout,
    )
    catalogue = Catalogue(
        defaults={
            "sentiment": settings.default_sentiment,
            "tag": settings.default_tag,
            "forecast": settings.default_forecast,
        },
    )
    admission = Admission(settings.queue_rows, settings.queue_size, settings.batch_rows)

    def observe(report: BatchReport) -> None:
        # What is computed before requests are let in is the replay of samples: no traffic, and no metric.
        if lifecycle.phase is Phase.STARTING:
            return
        admission.share_engine(report.rows_elsewhere)
        if not report.in_chunks:
            admission.observe(report.model, report.useful_steps, report.compute_s)
        if has_engine:
            count_batch(metrics, report)

    dispatcher = Dispatcher(engine, observe, room_in_s=admission.retry_after_s, num_engines=num_engines)
    answering = Answering(dispatcher, admission)
    gateway = Gateway(catalogue, answering, dispatcher.sessions, admission, lifecycle, metrics, limits)
    loader = Loader(engine, answering, catalogue, metrics, limits)
    return Core(engine, catalogue, loader, gateway, admission, lifecycle, metrics, limits, scrape, has_engine)
