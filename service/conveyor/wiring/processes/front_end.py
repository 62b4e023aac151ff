"""A process that speaks gRPC, and HTTP if it is given a socket for it, and has no device."""

from __future__ import annotations

import asyncio
import socket

import structlog

from conveyor.errors import ConveyorError, PackageError, Unavailable
from conveyor.lifecycle.background import Background
from conveyor.lifecycle.phase import Phase
from conveyor.settings import ServeSettings
from conveyor.wire.fleet import EngineFleet
from conveyor.wire.remote import RemoteEngine
from conveyor.wiring.core import Core, assemble
from conveyor.wiring.doors import Doors
from conveyor.wiring.processes.control import Begin, Ready
from conveyor.wiring.processes.handover import Handover
from conveyor.wiring.processes.member import Membership
from conveyor.wiring.serving import drain, freeze, model_lines, refresh_for_ever

__all__ = ["run_front_end"]

_log = structlog.get_logger(__name__)

_AGAIN_AFTER_S = 1.0


async def run_front_end(member: Membership, begin: Begin, settings: ServeSettings, engines: socket.socket) -> int:
    """Serves on the sockets of the server with the engines whose sockets are handed over, until told to end.

    Returns:
        0 after an ordered end; 1 if it could not begin.
    """
    attached = _Engines(begin.num_engines)
    core = assemble(
        settings, attached.fleet, member.metrics, member.scrape, has_engine=False, num_engines=begin.num_engines
    )
    Handover(engines, attached.accept)
    listener = socket.socket(fileno=begin.http_fd) if begin.http_fd is not None else None
    try:
        doors = await Doors.open(core, settings, listener, begin.grpc_port, shared=True)
    except OSError as error:
        await member.leave(failure=f"cannot listen on {error}")
        return 1
    loading = asyncio.create_task(_load(core, settings, member, attached))
    draining = asyncio.create_task(member.draining.wait())
    await asyncio.wait((loading, draining), return_when=asyncio.FIRST_COMPLETED)
    if not loading.done():
        loading.cancel()
    elif (failure := loading.result()) is not None:
        await member.leave(failure=failure)
        return 1
    freeze()
    background = [
        asyncio.create_task(_follow(core, member, attached)),
        asyncio.create_task(refresh_for_ever(core)),
    ]
    await draining
    core.lifecycle.set(Phase.DRAINING)
    for task in background:
        task.cancel()
    await asyncio.wait(background)
    await drain(core, doors, settings.drain_timeout, _all_idle(core, member))
    await member.leave()
    return 0


async def _all_idle(core: Core, member: Membership) -> None:
    """Returns once no front end has anything left to answer.

    Clients do not choose their front end: if one with nothing to do went first, some of them would lose their
    connection where the others are told that the server drains.
    """
    await core.admission.wait_idle()
    member.say_idle()
    await member.closing.wait()


async def _load(core: Core, settings: ServeSettings, member: Membership, engines: _Engines) -> str | None:
    """Makes this front end ready; returns why it can never be, if so."""
    while True:
        await engines.available.wait()
        try:
            device = await core.start()
            await core.load_models(settings.models)
            lines = model_lines(core, settings)
            break
        except PackageError as error:
            return error.message
        except Unavailable:
            # An engine was lost, and is started again.
            await asyncio.sleep(_AGAIN_AFTER_S)
    member.say_ready(Ready(device, lines))
    return None


async def _follow(core: Core, member: Membership, engines: _Engines) -> None:
    """Takes requests while the server does and there is an engine."""
    await member.opened.wait()
    while True:
        await engines.available.wait()
        core.lifecycle.set(Phase.READY)
        member.say_opened()
        await engines.unavailable.wait()
        core.lifecycle.set(Phase.STARTING)


class _Engines:
    """The engines of this front end, as they come and go."""

    def __init__(self, num_engines: int) -> None:
        self.fleet = EngineFleet(self._on_available, num_engines)
        self.available = asyncio.Event()
        self.unavailable = asyncio.Event()
        self._background = Background()

    def accept(self, connected: socket.socket, number: int) -> None:
        """Puts the engine of a number to work."""
        self._background.start(self._attach(connected, number))

    async def _attach(self, connected: socket.socket, number: int) -> None:
        engine = await RemoteEngine.open(connected, lambda: self.fleet.detach(engine))
        try:
            await self.fleet.attach(engine, number)
        except ConveyorError as error:
            # Lost meanwhile, most likely, and another will be handed over in its place.
            _log.warning("an engine could not be put to work", reason=error.message)
            engine.close()

    def _on_available(self, available: bool) -> None:
        event, other = (self.available, self.unavailable) if available else (self.unavailable, self.available)
        event.set()
        other.clear()
