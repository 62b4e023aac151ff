"""Where a process that the server starts begins: `python -m conveyor.wiring.processes.child CONTROL GIVEN`.

CONTROL and GIVEN are inherited sockets: over the one come orders, over the other the sockets of other processes.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys

import structlog
import uvloop

from conveyor.errors import ConveyorError
from conveyor.telemetry.logs import configure
from conveyor.wiring.processes.control import Role
from conveyor.wiring.processes.member import Membership

__all__: list[str] = []

_log = structlog.get_logger(__name__)


async def _run(control: socket.socket, given: socket.socket) -> int:
    member = Membership()
    begin, settings = await member.join(control)
    configure(settings.log_level)
    try:
        # Each role imports what it needs and nothing else: a front end has no torch, an engine no web framework.
        if begin.role is Role.ENGINE:
            from conveyor.wiring.processes.engine import run_engine

            return await run_engine(member, begin, settings, given)
        from conveyor.wiring.processes.front_end import run_front_end

        return await run_front_end(member, begin, settings, given)
    except ConveyorError as error:
        _log.error("a process of the server ends", role=begin.role.value, reason=error.message)
    except Exception:
        _log.exception("a process of the server failed", role=begin.role.value)
    return 1


def _main() -> None:
    # An ordered stop is the watching process's to begin, also where a signal goes to every process of the server.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    control, given = (socket.socket(fileno=int(descriptor)) for descriptor in sys.argv[1:])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = runner.run(_run(control, given))
    sys.stdout.flush()
    sys.stderr.flush()
    # Not through the interpreter's own end, which would wait for a thread that is inside an execution.
    os._exit(code)


if __name__ == "__main__":
    _main()
