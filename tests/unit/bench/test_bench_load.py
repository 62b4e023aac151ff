"""What follows from the options, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from conveyor.bench.load import plan_load
from conveyor.bench.options import BenchOptions
from conveyor.errors import InvalidArgument


def test_the_url_decides_the_protocol_and_where_metrics_are() -> None:
    """HTTP gives both; gRPC beside an HTTP URL is measured with its metrics; a gRPC URL has none."""
    http = plan_load(BenchOptions(url="http://127.0.0.1:8000"))
    assert ("http", "http://127.0.0.1:8000", "http://127.0.0.1:8000/metrics") == (
        http.protocol,
        http.address,
        http.metrics_url,
    )
    both = plan_load(BenchOptions(url="http://127.0.0.1:8000", grpc="[::1]:8001"))
    assert ("grpc", "[::1]:8001", "http://127.0.0.1:8000/metrics") == (both.protocol, both.address, both.metrics_url)
    grpc = plan_load(BenchOptions(url="grpc://localhost:8001"))
    assert ("grpc", "localhost:8001", None) == (grpc.protocol, grpc.address, grpc.metrics_url)


def test_a_rate_opens_the_loop_and_bounds_what_is_in_flight() -> None:
    """Connections times streams is the number of workers, or the bound."""
    closed = plan_load(BenchOptions(url="grpc://127.0.0.1:1", connections=3, streams=5))
    assert ("closed", 15) == (closed.loop, closed.in_flight)
    opened = plan_load(BenchOptions(url="http://127.0.0.1:1", rate=10.0, connections=7))
    assert ("open", 7) == (opened.loop, opened.in_flight)


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("url", {"url": "http://192.0.2.1:8000"}),
        ("url", {"url": "http://[2001:db8::1]:8000"}),
        ("url", {"url": "grpc://0.0.0.0:8001"}),
        ("url", {"url": "ftp://127.0.0.1"}),
        ("url", {"url": "127.0.0.1:8000"}),
        ("url", {"url": "http://127.0.0.1:port"}),
        ("url", {"url": "http://user@127.0.0.1:8000"}),
        ("url", {"url": "grpc://127.0.0.1"}),
        ("grpc", {"url": "http://127.0.0.1:8000", "grpc": "192.0.2.1:8001"}),
        ("grpc", {"url": "http://127.0.0.1:8000", "protocol": "grpc"}),
        ("metrics_url", {"url": "http://127.0.0.1:8000", "metrics_url": "http://192.0.2.1/metrics"}),
        ("protocol", {"url": "grpc://127.0.0.1:8001", "protocol": "http"}),
        ("streams", {"url": "http://127.0.0.1:8000", "streams": 2}),
    ],
)
def test_other_machines_and_contradictions_are_refused_by_field(field: str, given: dict[str, Any]) -> None:
    """Nothing is sent to an address that is not of this machine."""
    with pytest.raises(InvalidArgument) as caught:
        plan_load(BenchOptions(**given))
    assert field == caught.value.field


def test_another_machine_can_be_meant() -> None:
    """With the flag that says so."""
    load = plan_load(BenchOptions(url="http://192.0.2.1:8000", allow_remote=True))
    assert "http://192.0.2.1:8000" == load.address


@pytest.mark.parametrize(
    "given",
    [
        {"rate": 0.0},
        {"rate": 1e6},
        {"rate": float("nan")},
        {"duration": 0.0},
        {"duration": 1e5},
        {"rate": 20_000.0, "duration": 3600.0},
        {"connections": 0},
        {"items": 1025},
        {"deadline": -1.0},
        {"colour": "red"},
    ],
)
def test_options_are_bounded(given: dict[str, Any]) -> None:
    """A mistyped number does not become an hour of overload."""
    with pytest.raises(ValidationError):
        BenchOptions(url="http://127.0.0.1:8000", **given)
