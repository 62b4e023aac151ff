"""Requests that go the short path: what others do at an awkward moment is not felt."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fake_gateway import FakeGateway, FakeQuestion

from conveyor.api.rest.door import Door
from conveyor.api.rest.incoming import Incoming
from conveyor.api.rest.presence import Presence
from conveyor.api.rest.protocol import Connection
from conveyor.api.rest.short import ShortExchange
from conveyor.api.rest.tasks import create_tasks
from conveyor.api.small import Together
from conveyor.gateway.limits import Limits
from conveyor.lifecycle.phase import Lifecycle
from conveyor.telemetry.metrics import Metrics

# What a connection that is cut off sees in the place of an answer.
ABORTED = b"aborted"


def exchange(
    gateway: FakeGateway, metrics: Metrics, together: Together, write: Callable[[bytes], None], text: str
) -> tuple[ShortExchange, Presence]:
    """A request on a connection of its own, and its client."""
    endpoint = create_tasks(cast(Any, gateway), Door.of(metrics, Limits()))["/v1/sentiment"]
    presence = Presence()
    connection = SimpleNamespace(
        together=together,
        flow=SimpleNamespace(write_paused=False),
        transport=SimpleNamespace(is_closing=lambda: False, write=write, abort=lambda: write(ABORTED)),
        common_headers=lambda: b"",
        on_response_complete=lambda: None,
    )
    incoming = Incoming("an id", time.monotonic(), {}, presence)
    body = b'{"inputs": "%b"}' % text.encode()
    short = ShortExchange(cast(Connection, connection), endpoint, incoming, body, Lifecycle(), keep_alive=True)
    return short, presence


def test_a_client_that_left_before_its_request_was_begun_ends_it() -> None:
    """It was read in a turn of the loop in which its connection was lost: what waits for the engine waits no more."""

    async def leave_early() -> bytes:
        metrics, gateway = Metrics(), FakeGateway()
        together = Together(asyncio.get_running_loop(), gateway.gather)
        short, presence = exchange(gateway, metrics, together, lambda _: None, "wait")
        presence.leave()
        short.start()
        # It is read, and counted.
        for _ in range(2):
            await asyncio.sleep(0)
        assert not gateway.waiting.is_set()
        return metrics.render()

    assert b'code="CANCELLED"' in asyncio.run(leave_early())


def test_a_request_that_fails_between_its_steps_takes_no_other_along() -> None:
    """Those that are taken through the same steps with it are answered; its own client is cut off, for it must not wait
    for ever, and the fault is told to the loop."""
    written: list[bytes] = []
    cut_off: list[bytes] = []

    def fail(raw: bytes) -> None:
        if raw != ABORTED:
            raise ZeroDivisionError
        cut_off.append(raw)

    async def answer() -> list[object]:
        loop = asyncio.get_running_loop()
        faults: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: faults.append(context))
        together = Together(loop, loop.call_soon)
        for text, write in (("one", written.append), ("two", fail), ("three", written.append)):
            exchange(FakeGateway(), Metrics(), together, write, text)[0].start()
        async with asyncio.timeout(10):
            while not (faults and len(written) == 2):  # noqa: ASYNC110  nothing announces it
                await asyncio.sleep(0)
        return [type(fault["exception"]) for fault in faults]

    assert [ZeroDivisionError] == asyncio.run(answer())
    assert b"one" in written[0]
    assert b"three" in written[1]
    assert [ABORTED] == cut_off


def test_requests_that_cannot_be_encoded_together_are_encoded_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault there is that of one text: the others are answered."""
    written: list[bytes] = []

    def fail(questions: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(FakeQuestion, "encode_together", staticmethod(fail))

    async def answer() -> None:
        loop = asyncio.get_running_loop()
        together = Together(loop, loop.call_soon)
        for text in ("one", "two"):
            exchange(FakeGateway(), Metrics(), together, written.append, text)[0].start()
        async with asyncio.timeout(10):
            while len(written) < 2:  # noqa: ASYNC110  nothing announces it
                await asyncio.sleep(0)

    asyncio.run(answer())
    assert b"one" in written[0]
    assert b"two" in written[1]
