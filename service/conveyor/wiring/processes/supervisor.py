"""The process that owns the server's sockets, starts its other processes, and starts again what is lost."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import structlog
import uvloop

from conveyor.lifecycle.background import Background
from conveyor.lifecycle.phase import LAST_WRITES_S
from conveyor.settings import SECRETS, ServeSettings
from conveyor.telemetry.merge import Family, lasting, merged, render
from conveyor.telemetry.metrics import Metrics, Scrape
from conveyor.wiring.console import on_signals, say, say_addresses, say_failure
from conveyor.wiring.engines import choose_state_key
from conveyor.wiring.layout import Layout
from conveyor.wiring.listeners import bind, bind_shared
from conveyor.wiring.processes.child_process import ChildProcess
from conveyor.wiring.processes.control import (
    Begin,
    Close,
    Collect,
    Collected,
    Drain,
    Failed,
    Idle,
    Open,
    Opened,
    Page,
    Ready,
    Role,
    TellPage,
)
from conveyor.wiring.processes.handover import hand_over

__all__ = ["supervise"]

if TYPE_CHECKING:
    from conveyor.api.rest.server import HttpServer

_log = structlog.get_logger(__name__)

# A process that was lost is started again; if that happens too often, something is wrong that starting can't mend.
_MOST_RESTARTS = 5
_RESTARTS_WITHIN_S = 60.0

# How long a process may take to tell what it counted; one that is busy for longer is shown as it last was.
_COLLECT_WITHIN_S = 2.0

# After the grace: for the last answers to be written and the processes to end.
_END_WITHIN_S = 3 * LAST_WRITES_S

_QUEUED_CONNECTIONS = 2048


def supervise(settings: ServeSettings, layout: Layout) -> int:
    """Runs the server until SIGTERM or SIGINT; returns the exit code."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_Supervisor(settings, layout).run())


class _Supervisor:
    def __init__(self, settings: ServeSettings, layout: Layout) -> None:
        self._settings = settings
        self._layout = layout
        # One for all engines, also for those that are started later.
        self._state_key = choose_state_key(settings)
        self._children: list[ChildProcess] = []
        self._background = Background()
        self._losses: deque[float] = deque(maxlen=_MOST_RESTARTS)
        self._stop = asyncio.Event()
        self._failure: str | None = None
        self._open = False
        self._changed = asyncio.Event()
        self._metrics = Metrics()
        self._retired: Sequence[Family] = ()
        self._numbers = itertools.count()
        self._collecting: dict[int, asyncio.Future[None]] = {}

    async def run(self) -> int:
        """Starts the processes, watches them, and ends them."""
        began = time.monotonic()
        on_signals(self._stop)
        settings, layout = self._settings, self._layout
        try:
            http = bind_shared(settings.host, settings.http_port, layout.http_front_ends)
            # Held and never listened on: gRPC makes sockets of its own, and needs the port kept for them.
            grpc = bind_shared(settings.host, settings.grpc_port, 1)
            metrics = bind(settings.host, settings.metrics_port)
        except OSError as error:
            return say_failure(f"cannot listen on {error.strerror or error}")
        self._grpc_port = grpc[0].getsockname()[1]
        for listener in http:
            # From now on connections wait here for their front end, also while one is started again.
            listener.listen(_QUEUED_CONNECTIONS)
        for number in range(layout.engines):
            await self._start(Role.ENGINE, None, number)
        for number in range(layout.front_ends):
            await self._start(Role.FRONT_END, http[number] if number < len(http) else None)
        # Imported now: it takes most of a second, in which the other processes start as well.
        open_metrics_door = await asyncio.to_thread(_import_metrics_door)
        metrics_door = await open_metrics_door(self._page, metrics)
        say_addresses(settings.host, http[0].getsockname()[1], self._grpc_port, metrics.getsockname()[1])
        ready = asyncio.ensure_future(self._let_in(began))
        await self._stop.wait()
        ready.cancel()
        await self._end(metrics_door)
        if self._failure is not None:
            return say_failure(self._failure)
        say("stopped")
        return 0

    async def _let_in(self, began: float) -> None:
        """Once every front end is ready, opens them together: until then one might refuse what another answers."""
        # One that is being started again is not among them for a moment.
        await self._until(
            lambda: sum(child.ready is not None for child in self._front_ends()) >= self._layout.front_ends
        )
        first = next(child.ready for child in self._front_ends() if child.ready)
        say(f"  device   {first.device}")
        for line in first.models:
            say(line)
        self._open = True
        for child in self._children:
            child.send(Open())
        # Whoever reads the line and asks is not told that the server is starting.
        await self._until(lambda: all(child.opened for child in self._front_ends() if child.ready is not None))
        say(f"ready after {time.monotonic() - began:.1f} s")

    async def _start(self, role: Role, listener: socket.socket | None, number: int = 0) -> None:
        child = ChildProcess(role, listener, number)
        begin = Begin(
            role,
            self._settings.model_dump_json(exclude=set(SECRETS)),
            number,
            self._layout.engines,
            self._state_key if role is Role.ENGINE else b"",
            listener.fileno() if listener is not None else None,
            self._grpc_port,
        )
        pid = await child.start(begin, self._on_message)
        _log.info("a process of the server was started", role=role.value, pid=pid)
        if self._open and role is Role.ENGINE:
            child.send(Open())
        for other in self._children:
            if other.role is not role:
                one, another = socket.socketpair()
                engine = child if role is Role.ENGINE else other
                hand_over(child.given, one, engine.number)
                hand_over(other.given, another, engine.number)
        self._children.append(child)
        self._background.start(self._watch(child))
        if self._stop.is_set() and role is Role.FRONT_END:
            # The others were told to drain while this one was being started: it must not let anybody in.
            child.kill()

    async def _watch(self, child: ChildProcess) -> None:
        """Waits for a process to end, and starts another in its place if it should not have."""
        code = await child.ended()
        self._children.remove(child)
        self._changed.set()
        self._retired = merged([self._retired, lasting(child.families)])
        if self._stop.is_set():
            if child.listener is not None:
                # Nobody accepts there any more: new connections are for the others, if it was lost, or are refused.
                child.listener.close()
            return
        if child.failure is not None:
            self._fail(child.failure)
            return
        now = time.monotonic()
        _log.error("a process of the server was lost", role=child.role.value, exit_code=code)
        if len(self._losses) == _MOST_RESTARTS and now - self._losses[0] < _RESTARTS_WITHIN_S:
            self._fail(f"processes were lost {_MOST_RESTARTS + 1} times within {_RESTARTS_WITHIN_S:.0f} s; see the log")
            return
        self._losses.append(now)
        try:
            await self._start(child.role, child.listener, child.number)
        except OSError as error:
            self._fail(f"a process of the server could not be started again: {error}")

    def _fail(self, reason: str) -> None:
        if self._failure is None:
            self._failure = reason
        self._stop.set()

    def _on_message(self, child: ChildProcess, message: object) -> None:
        match message:
            case Ready():
                child.ready = message
                self._changed.set()
                if self._open:
                    child.send(Open())
            case Opened():
                child.opened = True
                self._changed.set()
            case Idle():
                child.idle = True
                self._changed.set()
            case Failed(reason):
                child.failure = reason
            case Collected(number, families):
                child.families = families
                future = self._collecting.get(number)
                if future is not None and not future.done():
                    future.set_result(None)
            case TellPage(number):
                self._background.start(self._answer(child, number))

    async def _answer(self, child: ChildProcess, number: int) -> None:
        child.send(Page(number, await self._page()))

    async def _page(self) -> bytes:
        """The metrics of all processes, the ended ones included."""
        asked = []
        for child in self._children:
            number = next(self._numbers)
            self._collecting[number] = asyncio.get_running_loop().create_future()
            asked.append(number)
            child.send(Collect(number))
        if asked:
            await asyncio.wait([self._collecting[number] for number in asked], timeout=_COLLECT_WITHIN_S)
        for number in asked:
            del self._collecting[number]
        return render(merged([self._metrics.snapshot(), self._retired, *(child.families for child in self._children)]))

    async def _end(self, metrics_door: HttpServer) -> None:
        """Lets the front ends answer what they have, then ends the engines; whoever does not end is killed."""
        if self._failure is None:
            say("draining: requests in flight are answered, new ones refused")
        for child in self._front_ends():
            child.send(Drain())
        grace_s = self._settings.drain_timeout if self._open else 0.0
        deadline = time.monotonic() + grace_s + _END_WITHIN_S
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._until(lambda: all(child.idle for child in self._front_ends())), grace_s)
        for child in self._front_ends():
            child.send(Close())
        await self._gone(self._front_ends(), deadline - time.monotonic())
        for child in self._children:
            child.send(Drain())
        # Engines write their sessions.
        await self._gone(list(self._children), _END_WITHIN_S + (grace_s if self._settings.state_dir else 0.0))
        await metrics_door.stop(LAST_WRITES_S)

    async def _until(self, holds: Callable[[], bool]) -> None:
        """Waits for something to hold that only a message or the end of a process can change. One at a time."""
        while not holds():
            await self._changed.wait()
            self._changed.clear()

    async def _gone(self, children: Iterable[ChildProcess], within_s: float) -> None:
        deadline = time.monotonic() + within_s
        for child in list(children):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(child.ended(), max(deadline - time.monotonic(), 0.0))
            child.kill()
            await child.ended()

    def _front_ends(self) -> Sequence[ChildProcess]:
        return [child for child in self._children if child.role is Role.FRONT_END]


def _import_metrics_door() -> Callable[[Scrape, socket.socket], Awaitable[HttpServer]]:
    from conveyor.wiring.metrics_door import open_metrics_door

    return open_metrics_door
