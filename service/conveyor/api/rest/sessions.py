"""Streaming sessions over HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from conveyor.api.offload import INLINE_BYTES, forecast_size
from conveyor.api.outcome import show_failures
from conveyor.api.rest.door import JSON, OCTETS, Door, send_answer
from conveyor.api.rest.incoming import Incoming
from conveyor.api.rest.parsing import parse_body
from conveyor.api.rest.session_answers import write_advance, write_advances, write_end, write_info
from conveyor.api.rest.session_bodies import OpenBody, read_append, read_append_many, read_observations
from conveyor.features.time import parse_start
from conveyor.gateway.call import Call
from conveyor.gateway.gateway import Gateway

__all__ = ["SessionRoutes"]

ReadT = TypeVar("ReadT")

_PREFIX = "/v1/sessions"

# A thousand readings, which msgspec reads in a seventh of a millisecond, are above what others are read at once.
_INLINE_MANY_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class _Request:
    """What came in. session: the id in the path, "" where it names none."""

    incoming: Incoming
    receive: Receive
    session: str


_Answer = Callable[[_Request, Call], Awaitable[bytes]]


class SessionRoutes:
    """What answers below `/v1/sessions`, as an ASGI application for an `Envelope`."""

    def __init__(self, gateway: Gateway, door: Door) -> None:
        use = _Use(gateway, door)
        self._append_many = _Endpoint(door, {"POST": use.append_many})
        self._open = _Endpoint(door, {"POST": use.open})
        self._below: Mapping[str, _Endpoint] = {
            "": _Endpoint(door, {"GET": use.tell, "DELETE": use.close}),
            "append": _Endpoint(door, {"POST": use.append}),
            "fork": _Endpoint(door, {"POST": use.fork}),
            "state": _Endpoint(door, {"GET": use.export, "PUT": use.import_state}, OCTETS),
        }

    def takes(self, scope: Scope) -> bool:
        """Whether a request is for one of them; if so, the scope is made ready for it."""
        parts = scope["path"].split("/")[1:]
        method: str = scope["method"]
        endpoint: _Endpoint | None = None
        if parts[:2] != ["v1", "sessions"]:
            return False
        match parts[2:]:
            case []:
                endpoint = self._open
            case ["append"]:
                endpoint = self._append_many
            case [session] if session:
                endpoint = self._below[""]
            case [session, verb] if session and verb:
                endpoint = self._below.get(verb)
        if endpoint is None or method not in endpoint.answers:
            return False
        scope["path_params"] = {"session": parts[2] if len(parts) > 2 else ""}
        scope["endpoint"] = endpoint
        return True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request that is for one of them."""
        await scope["endpoint"](scope, receive, send)

    def routes(self) -> list[BaseRoute]:
        """The same routes for a router, which says what is wrong with a path or a method."""
        found: list[BaseRoute] = [
            Route(_PREFIX, self._open, methods=["POST"]),
            Route(f"{_PREFIX}/append", self._append_many, methods=["POST"]),
        ]
        for verb, endpoint in self._below.items():
            path = f"{_PREFIX}/{{session}}/{verb}" if verb else f"{_PREFIX}/{{session}}"
            found.append(Route(path, endpoint, methods=list(endpoint.answers)))
        return found


@dataclass(frozen=True, slots=True)
class _Endpoint:
    """One path as an ASGI application. answers: by method. media_type: of what a GET is answered."""

    door: Door
    answers: Mapping[str, _Answer]
    media_type: bytes = JSON

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        request = _Request(Incoming.of_scope(scope), receive, scope["path_params"].get("session", ""))
        # A router lets HEAD through where there is GET.
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        call = self.door.call("forecast", request.incoming)
        answer = await self.door.reply(call, request.incoming, lambda call: self.answers[method](request, call))
        await send_answer(answer, scope, receive, send, self.media_type if method == "GET" else JSON)


@dataclass(frozen=True, slots=True)
class _Use:
    """Requests as the gateway takes them, and its answers as bodies."""

    gateway: Gateway
    door: Door

    async def _read(
        self, request: _Request, parse: Callable[[bytes], ReadT], inline_bytes: int = INLINE_BYTES
    ) -> ReadT:
        return await self.door.read(request.incoming, request.receive, parse, inline_bytes)

    async def open(self, request: _Request, call: Call) -> bytes:
        limits = self.door.limits

        def parse(raw: bytes) -> Callable[[], Awaitable[bytes]]:
            body = parse_body(OpenBody, raw, limits)
            history = None if body.values is None else read_observations(body.values, "values", limits)
            start = None if body.start is None else parse_start(body.start, field="start")

            async def ask() -> bytes:
                return write_info(await self.gateway.sessions.open(call, body.model, history, start, body.frequency))

            return ask

        return await (await self._read(request, parse))()

    async def append(self, request: _Request, call: Call) -> bytes:
        body = await self._read(request, lambda raw: read_append(raw, self.door.limits))
        return write_advance(
            await self.gateway.sessions.append(
                call, request.session, body.observations, body.horizon, body.quantiles, body.expected_steps
            )
        )

    async def append_many(self, request: _Request, call: Call) -> bytes:
        body = await self._read(request, lambda raw: read_append_many(raw, self.door.limits), _INLINE_MANY_BYTES)
        advances = await self.gateway.sessions.append_many(call, body.appends, body.horizon, body.quantiles)
        show_failures(advances.failures, call.request_id)
        numbers = sum(map(forecast_size, advances.results.values()))
        return await self.door.offload.write(numbers, lambda: write_advances(advances))

    async def fork(self, request: _Request, call: Call) -> bytes:
        await self._read(request, bool)
        return write_info(await self.gateway.sessions.fork(call, request.session))

    async def tell(self, request: _Request, call: Call) -> bytes:
        return write_info(await self.gateway.sessions.tell(call, request.session))

    async def close(self, request: _Request, call: Call) -> bytes:
        await self._read(request, bool)
        return write_end(await self.gateway.sessions.close(call, request.session))

    async def export(self, request: _Request, call: Call) -> bytes:
        return await self.gateway.sessions.export_state(call, request.session)

    async def import_state(self, request: _Request, call: Call) -> bytes:
        blob = await self._read(request, bytes)
        return write_info(await self.gateway.sessions.import_state(call, request.session, blob))
