"""A request that goes the short path, where its client leaves at an awkward moment."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any, cast

from starlette.responses import Response

from conveyor.api.rest.incoming import Incoming
from conveyor.api.rest.presence import Presence
from conveyor.api.rest.short import ShortExchange
from conveyor.api.rest.tasks import Endpoint
from conveyor.errors import Cancelled
from conveyor.lifecycle.alarms import Alarms
from conveyor.lifecycle.phase import Lifecycle


def test_a_client_that_left_before_its_request_was_begun_ends_it() -> None:
    """It was read in a turn of the loop in which its connection was lost: what waits for the engine waits no more."""

    async def exchange() -> Incoming:
        presence = Presence()
        incoming = Incoming("an id", time.monotonic(), {}, presence)
        ended: list[BaseException] = []

        async def reply() -> bytes | Response:
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError as error:
                ended.append(error)
            return b""

        endpoint = SimpleNamespace(reply=lambda *_: reply())
        connection = SimpleNamespace(flow=SimpleNamespace(write_paused=False), loop=asyncio.get_running_loop())
        short = ShortExchange(
            cast(Any, connection),
            cast(Endpoint[Any, Any], endpoint),
            incoming,
            Lifecycle(),
            Alarms(ShortExchange.expire),
            keep_alive=True,
        )
        presence.leave()
        short.begin(b"{}")
        assert ended
        await asyncio.sleep(0)
        return incoming

    incoming = asyncio.run(exchange())
    assert isinstance(incoming.ended, Cancelled)
