"""`conveyor serve`: from settings to an exit code."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from importlib.metadata import version

import structlog
import uvloop

from conveyor.errors import ConveyorError, PackageError, Problem
from conveyor.gateway.catalogue import State
from conveyor.lifecycle.phase import Phase
from conveyor.settings import ServeSettings
from conveyor.telemetry.logs import configure
from conveyor.wiring.core import Core, build_core
from conveyor.wiring.doors import Doors

__all__ = ["serve"]

_log = structlog.get_logger(__name__)

# How often what only the engine knows is read.
_REFRESH_EVERY_S = 1.0
_SWITCH_INTERVAL_S = 0.0005
# What answers already computed get to leave, also if the grace is over.
_LAST_WRITES_S = 1.0


def serve(settings: ServeSettings) -> int:
    """Runs the server until SIGTERM or SIGINT.

    Returns:
        0 after an ordered stop; 1 if it could not start, no model could be loaded, or the engine was lost.
    """
    configure(settings.log_level)
    # The engine's thread asks for the interpreter between any two operations; while the event loop is busy, each
    # time it would wait for the default of 5 ms.
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code, ended = runner.run(_serve(settings))
    if not ended:
        # The engine's thread is inside an execution that nobody waits for; an ordinary exit would wait for it, or
        # abort when the interpreter pulls the ground from under it.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


async def _serve(settings: ServeSettings) -> tuple[int, bool]:
    """The exit code, and whether the engine has ended."""
    began = time.monotonic()
    stop = asyncio.Event()
    failures: list[str] = []

    def fail(reason: str) -> None:
        failures.append(reason)
        stop.set()

    core = build_core(settings, fail)
    _on_signals(stop)
    try:
        doors = await Doors.open(core, settings)
    except OSError as error:
        await core.engine.drain()
        return _say_failure(f"cannot listen on {error.strerror or error}"), True
    _say(f"conveyor {version('conveyor')}")
    _say(f"  http     http://{doors.http_address}   (pages: /docs, /metrics)")
    _say(f"  grpc     {doors.grpc_address}")
    _say(f"  metrics  http://{doors.metrics_address}/metrics")
    background = [
        asyncio.create_task(_guard(_start(core, settings, began), fail)),
        asyncio.create_task(_guard(_refresh(core), fail)),
    ]

    await stop.wait()

    core.lifecycle.set(Phase.DRAINING)
    _say("draining: requests in flight are answered, new ones refused")
    for task in background:
        task.cancel()
    await asyncio.wait(background)
    ended = await _drain(core, doors, settings.drain_timeout)
    if failures:
        return _say_failure(failures[0]), ended
    _say("stopped")
    return 0, ended


async def _drain(core: Core, doors: Doors, grace_s: float) -> bool:
    """Keeps the doors open until what is in flight is answered or the grace is over, then ends everything.

    New requests and health checks are answered meanwhile, with 503: a load balancer sees the server go.

    Returns:
        Whether the engine has ended; if not, it is in the middle of a long execution.
    """
    deadline = time.monotonic() + grace_s
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(core.admission.wait_idle(), grace_s)
    await doors.close(max(deadline - time.monotonic(), _LAST_WRITES_S))
    try:
        await asyncio.wait_for(core.engine.drain(), max(deadline - time.monotonic(), _LAST_WRITES_S))
    except TimeoutError:
        return False
    return True


async def _guard(work: Coroutine[object, object, None], fail: Callable[[str], None]) -> None:
    """Runs a background task; if it ends by itself with an error, the server stops and says why."""
    try:
        await work
    except ConveyorError as error:
        fail(error.message)
    except Exception as error:
        _log.exception("a background task failed")
        fail(str(error))


def _on_signals(stop: asyncio.Event) -> None:
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


async def _start(core: Core, settings: ServeSettings, began: float) -> None:
    """Loads the models behind doors that already answer for health."""
    await core.start()
    _say(f"  device   {core.catalogue.plan['device']}")
    await core.load_models(settings.models)
    served = 0
    for entry in core.catalogue.entries():
        if entry.state is State.READY:
            served += 1
            _say(f"  model    {entry.key.name} {entry.key.version}")
        else:
            _say(f"  refused  {entry.key.name} {entry.key.version}: {entry.reason}")
    if not served:
        raise PackageError([Problem(str(settings.models), "", "no model here could be loaded")])
    # What is loaded by now stays; left to the collector it would be walked again and again, a fifth of a second each.
    gc.collect()
    gc.freeze()
    core.lifecycle.set(Phase.READY)
    _say(f"ready after {time.monotonic() - began:.1f} s")


async def _refresh(core: Core) -> None:
    while True:
        await asyncio.sleep(_REFRESH_EVERY_S)
        await core.refresh()


def _say(line: str) -> None:
    print(line, flush=True)


def _say_failure(reason: str) -> int:
    print(f"conveyor: {reason}", file=sys.stderr, flush=True)
    return 1
