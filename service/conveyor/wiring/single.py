"""The server in one process: doors and gateway on the event loop, the engine on a thread beside it."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Coroutine

import structlog
import uvloop

from conveyor.errors import ConveyorError
from conveyor.lifecycle.phase import Phase
from conveyor.settings import ServeSettings
from conveyor.wiring.console import on_signals, say, say_addresses, say_failure
from conveyor.wiring.core import Core, build_core
from conveyor.wiring.doors import Doors
from conveyor.wiring.engines import choose_state_key, session_options
from conveyor.wiring.listeners import bind
from conveyor.wiring.metrics_door import open_metrics_door
from conveyor.wiring.serving import drain, freeze, model_lines, refresh_for_ever

__all__ = ["serve_single"]

_log = structlog.get_logger(__name__)

_SWITCH_INTERVAL_S = 0.0005


def serve_single(settings: ServeSettings) -> int:
    """Runs the server until SIGTERM or SIGINT; returns the exit code."""
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

    core = build_core(settings, fail, session_options(settings, choose_state_key(settings)))
    on_signals(stop)
    try:
        http_socket = bind(settings.host, settings.http_port)
        metrics_socket = bind(settings.host, settings.metrics_port)
        doors = await Doors.open(core, settings, http_socket, settings.grpc_port, shared=False)
        metrics_door = await open_metrics_door(core.scrape, metrics_socket)
    except OSError as error:
        await core.engine.drain()
        return say_failure(f"cannot listen on {error.strerror or error}"), True
    say_addresses(settings.host, http_socket.getsockname()[1], doors.grpc_port, metrics_socket.getsockname()[1])
    background = [
        asyncio.create_task(_guard(_start(core, settings, began), fail)),
        asyncio.create_task(_guard(refresh_for_ever(core), fail)),
    ]

    await stop.wait()

    core.lifecycle.set(Phase.DRAINING)
    say("draining: requests in flight are answered, new ones refused")
    for task in background:
        task.cancel()
    await asyncio.wait(background)
    ended = await drain(core, doors, settings.drain_timeout, core.admission.wait_idle())
    # Metrics can be scraped until the end.
    await metrics_door.stop(1.0)
    if failures:
        return say_failure(failures[0]), ended
    say("stopped")
    return 0, ended


async def _guard(work: Coroutine[object, object, None], fail: Callable[[str], None]) -> None:
    """Runs a background task; if it ends by itself with an error, the server stops and says why."""
    try:
        await work
    except ConveyorError as error:
        fail(error.message)
    except Exception as error:
        _log.exception("a background task failed")
        fail(str(error))


async def _start(core: Core, settings: ServeSettings, began: float) -> None:
    """Loads the models behind doors that already answer for health."""
    say(f"  device   {await core.start()}")
    await core.load_models(settings.models)
    for line in model_lines(core, settings):
        say(line)
    freeze()
    core.lifecycle.set(Phase.READY)
    say(f"ready after {time.monotonic() - began:.1f} s")
