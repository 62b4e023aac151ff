"""The models, the health and the metrics over HTTP."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from conveyor.api.rest.answers import HEALTH, MODEL, MODEL_LIST, Health, ModelList, write
from conveyor.api.rest.envelope import Envelope
from conveyor.api.rest.errors import routing_error
from conveyor.api.rest.openapi import errors_documentation, service_documentation
from conveyor.errors import Unavailable
from conveyor.gateway.gateway import Gateway
from conveyor.lifecycle.phase import Lifecycle, Phase
from conveyor.telemetry.metrics import Metrics, Scrape

__all__ = ["add_service_routes", "create_metrics_app"]


def add_service_routes(app: FastAPI, gateway: Gateway, lifecycle: Lifecycle, scrape: Scrape) -> None:
    """Adds `GET /v1/models`, `/v1/models/{name}`, `/health/live`, `/health/ready` and `/metrics`."""

    @app.get(
        "/v1/models",
        tags=["models"],
        response_model=None,
        responses=service_documentation("ModelList", "Every model, by name.") | errors_documentation(),
    )
    async def models() -> Response:
        """Every model of this server, in every state."""
        return write(MODEL_LIST, ModelList(gateway.models()))

    @app.get(
        "/v1/models/{name}",
        tags=["models"],
        response_model=None,
        responses=service_documentation("Model", "The model.") | errors_documentation(404),
    )
    async def model(name: str) -> Response:
        """One model."""
        return write(MODEL, gateway.model(name))

    # A route of FastAPI answers no HEAD by itself, and one route of two methods would be documented under one id.
    @app.head("/health/live", include_in_schema=False)
    @app.get(
        "/health/live", tags=["health"], response_model=None, responses=service_documentation("Health", "It lives.")
    )
    async def live() -> Response:
        """Says that the process runs and answers."""
        return write(HEALTH, Health("live"))

    @app.head("/health/ready", include_in_schema=False)
    @app.get(
        "/health/ready",
        tags=["health"],
        response_model=None,
        responses=service_documentation("Health", "Requests are accepted.") | errors_documentation(503),
    )
    async def ready() -> Response:
        """Says whether requests are accepted now."""
        if lifecycle.phase is not Phase.READY:
            raise Unavailable(f"the server is {lifecycle.phase.value}", retry_after_s=1.0)
        return write(HEALTH, Health("ready"))

    @app.get(
        "/metrics",
        tags=["metrics"],
        response_model=None,
        responses={200: {"description": "The metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics() -> Response:
        """The metrics of this server, in the Prometheus text format."""
        return await _metrics(scrape)


def create_metrics_app(scrape: Scrape) -> Starlette:
    """Returns the app of the metrics port: `GET /metrics` and nothing else."""

    async def metrics(_: Request) -> Response:
        return await _metrics(scrape)

    return Starlette(
        routes=[Route("/metrics", metrics)],
        middleware=[Middleware(Envelope)],
        exception_handlers={HTTPException: routing_error},
    )


async def _metrics(scrape: Scrape) -> Response:
    return Response(await scrape(), headers={"Content-Type": Metrics.content_type})
