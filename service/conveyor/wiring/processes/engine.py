"""A process that owns a device."""

from __future__ import annotations

import asyncio
import socket

from conveyor.engine.host import EngineHost
from conveyor.settings import ServeSettings
from conveyor.telemetry.metrics import Metrics
from conveyor.wire.messages import BatchReport
from conveyor.wire.port import EnginePort
from conveyor.wiring.engines import count_batch, count_sessions, inline_engine, session_options
from conveyor.wiring.processes.control import Begin, Ready
from conveyor.wiring.processes.handover import Handover
from conveyor.wiring.processes.member import Membership

__all__ = ["run_engine"]

_COUNT_EVERY_S = 1.0


async def run_engine(member: Membership, begin: Begin, settings: ServeSettings, front_ends: socket.socket) -> int:
    """Serves the front ends whose sockets are handed over, until told to end.

    Returns:
        0 after an ordered end; 1 if the engine was lost.
    """
    lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def observe(report: BatchReport) -> None:
        # What is computed before requests are let in is the replay of samples: no traffic, and no metric.
        if member.opened.is_set():
            count_batch(member.metrics, report)

    try:
        sessions = session_options(settings, begin.state_key, begin.number, begin.num_engines)
        engine = inline_engine(settings, lost.set_result, sessions)
        host = EngineHost(engine, observe)
    except (ValueError, OSError) as error:
        # No such device, or a state directory that can't be used: to start again would not help.
        await member.leave(failure=str(error))
        return 1
    Handover(front_ends, lambda connected, _: host.accept(connected))
    member.say_ready(Ready((await engine.stats()).device))
    counting = asyncio.create_task(_count_for_ever(engine, member.metrics))
    draining = asyncio.ensure_future(member.draining.wait())
    await asyncio.wait((draining, lost), return_when=asyncio.FIRST_COMPLETED)
    draining.cancel()
    counting.cancel()
    if not lost.done():
        await engine.drain()
    await host.close()
    await member.leave()
    return 1 if lost.done() else 0


async def _count_for_ever(engine: EnginePort, metrics: Metrics) -> None:
    """Takes over how many sessions there are, again and again."""
    while True:
        await asyncio.sleep(_COUNT_EVERY_S)
        count_sessions(metrics, await engine.stats())
