"""Real server processes, shared by the tests that do not stop them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.packages import write_tiny_models
from support.rpc import Client
from support.server import ServerProcess, start_server

SHIPPED = Path(__file__).parents[2] / "models"


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models directory with a tiny package of each kind."""
    return write_tiny_models(tmp_path_factory.mktemp("models"))


FORMS = {
    "one process": ("--frontends", "0"),
    "split": ("--frontends", "1", "--engines", "1"),
    "several of each": ("--frontends", "2", "--engines", "2"),
}


@pytest.fixture(scope="session", params=FORMS)
def tiny_server(tiny_models: Path, request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    """A server on the tiny packages, in each of its forms: users can't tell them apart."""
    with start_server(tiny_models, *FORMS[request.param]) as server:
        yield server


@pytest.fixture(scope="session", params=["one process", "split"])
def shipped_server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    """A server on the packages that ship."""
    with start_server(SHIPPED, *FORMS[request.param]) as server:
        yield server


def _http(server: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.http, timeout=60, trust_env=False) as client:
        yield client


def _rpc(server: ServerProcess) -> Iterator[Client]:
    client = Client(server.grpc)
    yield client
    client.close()


@pytest.fixture
def http(tiny_server: ServerProcess) -> Iterator[httpx.Client]:
    """A client of the tiny server's HTTP door."""
    yield from _http(tiny_server)


@pytest.fixture
def rpc(tiny_server: ServerProcess) -> Iterator[Client]:
    """A client of the tiny server's gRPC door."""
    yield from _rpc(tiny_server)


@pytest.fixture
def shipped_http(shipped_server: ServerProcess) -> Iterator[httpx.Client]:
    """A client of the shipped models' HTTP door."""
    yield from _http(shipped_server)


@pytest.fixture
def shipped_rpc(shipped_server: ServerProcess) -> Iterator[Client]:
    """A client of the shipped models' gRPC door."""
    yield from _rpc(shipped_server)
