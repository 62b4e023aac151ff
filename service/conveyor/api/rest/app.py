"""The HTTP door as one ASGI application."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

from conveyor.api.rest.envelope import Envelope
from conveyor.api.rest.errors import request_error, routing_error
from conveyor.api.rest.openapi import describe_bodies
from conveyor.api.rest.service import add_service_routes
from conveyor.api.rest.tasks import add_task_routes
from conveyor.errors import ConveyorError
from conveyor.gateway.gateway import Gateway
from conveyor.gateway.limits import Limits
from conveyor.lifecycle.phase import Lifecycle
from conveyor.telemetry.metrics import Metrics

__all__ = ["create_app"]


def create_app(gateway: Gateway, lifecycle: Lifecycle, metrics: Metrics, limits: Limits) -> FastAPI:
    """Builds the application: the tasks, the models, health, metrics and a documentation page that works offline."""
    app: FastAPI = FastAPIOffline(
        title="Conveyor",
        version=version("conveyor"),
        description="Sentiment, sequence tagging and forecasting with recurrent networks.",
        # The other page FastAPI offers loads a picture from elsewhere, and one page is enough.
        redoc_url=None,
        # Swagger UI would send the address of this document to an online validator.
        swagger_ui_parameters={"validatorUrl": None},
        redirect_slashes=False,
    )
    add_task_routes(app, gateway, metrics, limits)
    add_service_routes(app, gateway, lifecycle, metrics)
    describe_bodies(app)
    app.add_exception_handler(ConveyorError, request_error)
    app.add_exception_handler(HTTPException, routing_error)
    app.add_middleware(Envelope, lifecycle=lifecycle)
    return app
