"""The HTTP door as one ASGI application."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from conveyor.api.rest.door import Door
from conveyor.api.rest.envelope import Envelope
from conveyor.api.rest.errors import request_error, routing_error
from conveyor.api.rest.heads import KnownHeads
from conveyor.api.rest.openapi import describe
from conveyor.api.rest.service import add_service_routes
from conveyor.api.rest.session_socket import SessionSockets
from conveyor.api.rest.sessions import SessionRoutes
from conveyor.api.rest.tasks import Endpoint, create_tasks
from conveyor.api.small import Together
from conveyor.errors import ConveyorError
from conveyor.gateway.gateway import Gateway
from conveyor.gateway.limits import Limits
from conveyor.lifecycle.phase import Lifecycle
from conveyor.telemetry.metrics import Metrics, Scrape

__all__ = ["App", "create_app"]


class App:
    """The application: the tasks, the models, health, metrics and a documentation page that works offline.

    The tasks and the sessions are answered in front of FastAPI, because they cost little beside its routing; a server
    that knows `short_paths` may ask those without ASGI between. FastAPI answers everything else, also what is wrong
    with a task's method.

    short_paths: the tasks by path, as it stands in a request.
    heads: of the requests that go the short path.
    together: their steps.
    """

    def __init__(
        self,
        endpoints: Mapping[str, Endpoint[Any, Any]],
        sessions: SessionRoutes,
        sockets: SessionSockets,
        others: ASGIApp,
        lifecycle: Lifecycle,
        together: Together,
    ) -> None:
        self.short_paths = {path.encode(): endpoint for path, endpoint in endpoints.items()}
        self.heads = KnownHeads()
        self.together = together
        self.lifecycle = lifecycle
        self._enveloped = {path: Envelope(endpoint, lifecycle) for path, endpoint in endpoints.items()}
        self._sessions, self._enveloped_sessions = sessions, Envelope(sessions, lifecycle)
        self._sockets = sockets
        self._others = others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request, or one WebSocket."""
        answering = self._others
        if scope["type"] == "websocket":
            answering = self._sockets
        elif scope["type"] == "http":
            if scope["method"] == "POST" and scope["path"] in self._enveloped:
                answering = self._enveloped[scope["path"]]
            elif self._sessions.takes(scope):
                answering = self._enveloped_sessions
        await answering(scope, receive, send)


def create_app(gateway: Gateway, lifecycle: Lifecycle, metrics: Metrics, limits: Limits, scrape: Scrape) -> App:
    """Builds the application."""
    door = Door.of(metrics, limits)
    tasks = create_tasks(gateway, door)
    sessions, sockets = SessionRoutes(gateway, door), SessionSockets(gateway, door, lifecycle)
    service = _create_service(gateway, lifecycle, scrape, tasks, sessions)
    loop = asyncio.get_running_loop()
    # What many connections have sent is read in one turn of the loop.
    return App(tasks, sessions, sockets, service, lifecycle, Together(loop, loop.call_soon))


def _create_service(
    gateway: Gateway, lifecycle: Lifecycle, scrape: Scrape, tasks: Mapping[str, ASGIApp], sessions: SessionRoutes
) -> FastAPI:
    service: FastAPI = FastAPIOffline(
        title="Conveyor",
        version=version("conveyor"),
        description="Sentiment, sequence tagging and forecasting with recurrent networks.",
        # The other page FastAPI offers loads a picture from elsewhere, and one page is enough.
        redoc_url=None,
        # Swagger UI would send the address of this document to an online validator.
        swagger_ui_parameters={"validatorUrl": None},
        redirect_slashes=False,
    )
    for path, task in tasks.items():
        service.router.routes.append(Route(path, task, methods=["POST"]))
    service.router.routes.extend(sessions.routes())
    add_service_routes(service, gateway, lifecycle, scrape)
    describe(service)
    service.add_exception_handler(ConveyorError, request_error)
    service.add_exception_handler(HTTPException, routing_error)
    service.add_middleware(Envelope, lifecycle=lifecycle)
    return service
