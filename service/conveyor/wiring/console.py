"""The server's operator: the lines it prints, and the signals it gets."""

from __future__ import annotations

import asyncio
import signal
import sys

from conveyor.wiring.listeners import address

__all__ = ["on_signals", "say", "say_addresses", "say_failure"]


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
