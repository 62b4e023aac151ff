"""A request that goes the short path, where its client leaves at an awkward moment."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any, cast

from fake_gateway import FakeGateway

from conveyor.api.rest.door import Door
from conveyor.api.rest.incoming import Incoming
from conveyor.api.rest.presence import Presence
from conveyor.api.rest.short import ShortExchange, Together
from conveyor.api.rest.tasks import create_tasks
from conveyor.gateway.limits import Limits
from conveyor.lifecycle.phase import Lifecycle
from conveyor.telemetry.metrics import Metrics


def test_a_client_that_left_before_its_request_was_begun_ends_it() -> None:
    """It was read in a turn of the loop in which its connection was lost: what waits for the engine waits no more."""

    async def exchange() -> bytes:
        metrics, gateway = Metrics(), FakeGateway()
        endpoint = create_tasks(cast(Any, gateway), Door.of(metrics, Limits()))["/v1/sentiment"]
        presence = Presence()
        loop = asyncio.get_running_loop()
        connection = SimpleNamespace(flow=SimpleNamespace(write_paused=False), loop=loop, together=Together(loop))
        short = ShortExchange(
            cast(Any, connection),
            endpoint,
            Incoming("an id", time.monotonic(), {}, presence),
            b'{"inputs": "wait"}',
            Lifecycle(),
            keep_alive=True,
        )
        presence.leave()
        short.begin()
        await asyncio.sleep(0)
        assert not gateway.waiting.is_set()
        return metrics.render()

    assert b'code="CANCELLED"' in asyncio.run(exchange())


def test_a_step_that_fails_takes_no_other_along() -> None:
    """Those of other requests are done in the same turn of the loop, and the fault is told to the loop."""

    async def turn() -> None:
        loop = asyncio.get_running_loop()
        faults: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: faults.append(context))
        done: list[int] = []
        together = Together(loop)
        for step in (lambda: done.append(1), lambda: done.append(1 // 0), lambda: done.append(2)):
            together.soon(step)
        await asyncio.sleep(0)

        assert [1, 2] == done
        assert [ZeroDivisionError] == [type(fault["exception"]) for fault in faults]

    asyncio.run(turn())
