"""A process of the server, as the one that watches sees it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence

from conveyor.telemetry.merge import Family
from conveyor.wire.channel import Channel
from conveyor.wiring.processes.control import CONTROL, Begin, Ready, Role

__all__ = ["ChildProcess"]


class ChildProcess:
    """One that can be told things, waited for and killed.

    Args:
        listener: Where it speaks HTTP, if it does; stays open here.
        number: Its number among the engines, if it is one.

    Attributes:
        given: Where sockets for it are handed over.
        ready: What it said when it was.
        opened: Whether it has taken requests, if it is a front end.
        idle: Whether it drains and has answered what it accepted, if it is a front end.
        failure: Why starting it again would not help, if it said so.
        families: What it counted, by its last word.
    """

    def __init__(self, role: Role, listener: socket.socket | None, number: int = 0) -> None:
        self.role = role
        self.number = number
        self.listener = listener
        self.ready: Ready | None = None
        self.opened = False
        self.idle = False
        self.failure: str | None = None
        self.families: Sequence[Family] = ()

    async def start(self, begin: Begin, on_message: Callable[[ChildProcess, object], None]) -> int:
        """Starts it and returns its process id; messages come from then on."""
        control, its_control = socket.socketpair()
        self.given, its_given = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        inherited = [its_control.fileno(), its_given.fileno()]
        if begin.http_fd is not None:
            inherited.append(begin.http_fd)
        with its_control, its_given:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "conveyor.wiring.processes.child", str(its_control.fileno()), str(its_given.fileno())),
                stdin=subprocess.DEVNULL,
                pass_fds=inherited,
                # A Ctrl-C in the terminal is for the process that watches, which lets the others finish.
                start_new_session=True,
            )
        self._channel = Channel(CONTROL, lambda message: on_message(self, message), lambda: None)
        await self._channel.open(control)
        self._channel.send(begin)
        return self._process.pid

    def send(self, message: object) -> None:
        """Tells it something."""
        self._channel.send(message)

    async def ended(self) -> int:
        """Waits for its end; returns its exit code, or the number of the signal that ended it, negative."""
        code = await self._process.wait()
        self._channel.close()
        self.given.close()
        return code

    def kill(self) -> None:
        """Ends it at once, if it has not ended."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
