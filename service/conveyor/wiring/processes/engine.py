"""A process that owns a device."""

from __future__ import annotations

import asyncio
import socket

from conveyor.engine.host import EngineHost
from conveyor.settings import ServeSettings
from conveyor.wire.messages import BatchReport
from conveyor.wiring.engines import count_batch, inline_engine
from conveyor.wiring.processes.control import Ready
from conveyor.wiring.processes.handover import Handover
from conveyor.wiring.processes.member import Membership

__all__ = ["run_engine"]


async def run_engine(member: Membership, settings: ServeSettings, front_ends: socket.socket) -> int:
    """Serves the front ends whose sockets are handed over, until told to end.

    Returns:
        0 after an ordered end; 1 if the engine was lost.
    """
    lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    try:
        engine = inline_engine(settings, lost.set_result)
    except ValueError as error:
        await member.leave(failure=str(error))
        return 1

    def observe(report: BatchReport) -> None:
        # What is computed before requests are let in is the replay of samples: no traffic, and no metric.
        if member.opened.is_set():
            count_batch(member.metrics, report)

    host = EngineHost(engine, observe)
    Handover(front_ends, lambda connected, _: host.accept(connected))
    member.say_ready(Ready((await engine.stats()).device))
    draining = asyncio.ensure_future(member.draining.wait())
    await asyncio.wait((draining, lost), return_when=asyncio.FIRST_COMPLETED)
    draining.cancel()
    if not lost.done():
        await engine.drain()
    await host.close()
    await member.leave()
    return 1 if lost.done() else 0
