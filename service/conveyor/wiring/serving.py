"""What every front end does once its parts are there: tell what it has, follow the engine, drain."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import Awaitable, Sequence

from conveyor.errors import ConveyorError, PackageError, Problem
from conveyor.gateway.catalogue import State
from conveyor.lifecycle.phase import LAST_WRITES_S
from conveyor.settings import ServeSettings
from conveyor.wiring.core import Core
from conveyor.wiring.doors import Doors

__all__ = ["drain", "freeze", "model_lines", "refresh_for_ever"]

# Objects made before the youngest are looked at, and how often the older ones with them.
_COLLECT_AFTER = 50_000, 20, 20

# How often what only the engine knows is read.
_REFRESH_EVERY_S = 1.0


def model_lines(core: Core, settings: ServeSettings) -> Sequence[str]:
    """A line for each version of each model.

    Raises:
        PackageError: None of them serves.
    """
    lines = []
    served = 0
    for entry in core.catalogue.entries():
        if entry.state is State.READY:
            served += 1
            lines.append(f"  model    {entry.key.name} {entry.key.version}")
        else:
            lines.append(f"  refused  {entry.key.name} {entry.key.version}: {entry.reason}")
    if not served:
        raise PackageError([Problem(str(settings.models), "", "; ".join(["no model here could be loaded", *lines]))])
    return lines


def freeze() -> None:
    """Takes what is loaded by now from the collector, which would walk it again and again, a fifth of a second each
    time, and lets it look at the rest less often: requests make few cycles, and took 8 % longer for it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)


async def refresh_for_ever(core: Core) -> None:
    """Reads what only the engine knows, again and again."""
    while True:
        await asyncio.sleep(_REFRESH_EVERY_S)
        # Lost, and started again by whoever watches.
        with contextlib.suppress(ConveyorError):
            await core.refresh()


async def drain(core: Core, doors: Doors, grace_s: float, idle: Awaitable[None]) -> bool:
    """Keeps the doors open until what is in flight is answered or the grace is over, then ends everything.

    New requests and health checks are answered meanwhile, with 503: a load balancer sees the server go.

    Args:
        idle: Over when what is in flight is answered.

    Returns:
        Whether the engine has ended; if not, it is in the middle of a long execution.
    """
    deadline = time.monotonic() + grace_s
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(idle, grace_s)
    await doors.close(max(deadline - time.monotonic(), LAST_WRITES_S))
    try:
        await asyncio.wait_for(core.engine.drain(), max(deadline - time.monotonic(), LAST_WRITES_S))
    except TimeoutError:
        return False
    return True
