"""What every form of the server does once its parts are there: say what it has, follow the engine, drain."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import sys
import time
from collections.abc import Sequence

from conveyor.errors import ConveyorError, PackageError, Problem
from conveyor.gateway.catalogue import State
from conveyor.settings import ServeSettings
from conveyor.wiring.core import Core
from conveyor.wiring.doors import Doors, address

__all__ = [
    "LAST_WRITES_S",
    "drain",
    "freeze",
    "model_lines",
    "on_signals",
    "refresh_for_ever",
    "say",
    "say_addresses",
    "say_failure",
]

# What answers already computed get to leave, also if the grace is over.
LAST_WRITES_S = 1.0

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


async def drain(core: Core, doors: Doors, grace_s: float) -> bool:
    """Keeps the doors open until what is in flight is answered or the grace is over, then ends everything.

    New requests and health checks are answered meanwhile, with 503: a load balancer sees the server go.

    Returns:
        Whether the engine has ended; if not, it is in the middle of a long execution.
    """
    deadline = time.monotonic() + grace_s
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(core.admission.wait_idle(), grace_s)
    await doors.close(max(deadline - time.monotonic(), LAST_WRITES_S))
    try:
        await asyncio.wait_for(core.engine.drain(), max(deadline - time.monotonic(), LAST_WRITES_S))
    except TimeoutError:
        return False
    return True


def on_signals(stop: asyncio.Event) -> None:
    """The first SIGTERM or SIGINT asks for an ordered stop; a second one, of either kind, ends the process at once."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)

    def on_signal() -> None:
        stop.set()
        for number in numbers:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in numbers:
        loop.add_signal_handler(number, on_signal)


def say_addresses(host: str, http_port: int, grpc_port: int, metrics_port: int) -> None:
    """Tells where the server listens."""
    say(f"  http     http://{address(host, http_port)}   (pages: /docs, /metrics)")
    say(f"  grpc     {address(host, grpc_port)}")
    say(f"  metrics  http://{address(host, metrics_port)}/metrics")


def say(line: str) -> None:
    """Tells the user."""
    print(line, flush=True)


def say_failure(reason: str) -> int:
    """Tells the user why the server ends, and returns the exit code."""
    print(f"conveyor: {reason}", file=sys.stderr, flush=True)
    return 1
