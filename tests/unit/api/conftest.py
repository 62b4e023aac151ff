"""A door's surroundings: an echoing gateway, a server that is ready, metrics, and limits small enough to exceed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
from fake_gateway import FakeGateway
from prometheus_client.parser import text_string_to_metric_families

from conveyor.api.rest.app import create_app
from conveyor.api.rest.server import HttpServer
from conveyor.gateway.limits import Limits
from conveyor.lifecycle.phase import Lifecycle, Phase
from conveyor.telemetry.metrics import Metrics
from support.session_gateway import RememberingEngine, session_gateway

RequestCount = Callable[..., float]
Counted = Callable[..., Awaitable[None]]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The server runs on asyncio only."""
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
async def one_event_loop(anyio_backend: str) -> AsyncIterator[None]:
    """Keeps one event loop for all tests, as a server has: grpc.aio may still deliver to a loop that was closed."""
    assert anyio_backend == "asyncio"
    yield  # noqa: PT022  a fixture that returns does not hold its loop


@pytest.fixture
def lifecycle() -> Lifecycle:
    """Ready."""
    lifecycle = Lifecycle()
    lifecycle.set(Phase.READY)
    return lifecycle


@pytest.fixture
def metrics() -> Metrics:
    """Empty."""
    return Metrics()


@pytest.fixture
def limits() -> Limits:
    """A body of at most 256 KiB."""
    return Limits(body_bytes=2**18)


@pytest.fixture
def engine() -> RememberingEngine:
    """Has no sessions yet."""
    return RememberingEngine()


@pytest.fixture
async def gateway(engine, lifecycle, metrics, limits) -> FakeGateway:
    """Echoes, and keeps sessions."""
    return FakeGateway(session_gateway(engine, lifecycle, metrics, limits).sessions)


@pytest.fixture
def listening_socket() -> Iterator[socket.socket]:
    """Bound to a free port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@pytest.fixture
def request_count(metrics: Metrics) -> RequestCount:
    """Returns how many requests with these labels were counted."""

    def count(**labels: str) -> float:
        return sum(
            sample.value
            for family in text_string_to_metric_families(metrics.render().decode())
            for sample in family.samples
            if sample.name == "conveyor_requests_total" and labels.items() <= sample.labels.items()
        )

    return count


@pytest.fixture
def counted(request_count: RequestCount) -> Counted:
    """Returns once a request with these labels was counted, which follows the end of its connection."""

    async def until_counted(**labels: str) -> None:
        while not request_count(**labels):  # noqa: ASYNC110  nothing announces a count
            await asyncio.sleep(0)

    return until_counted


@pytest.fixture
async def server(gateway, lifecycle, metrics, limits, listening_socket) -> AsyncIterator[HttpServer]:
    """Serves until the test ends."""
    server = HttpServer(create_app(gateway, lifecycle, metrics, limits, metrics.scrape), listening_socket)
    await server.start()
    yield server
    await server.stop(0)
