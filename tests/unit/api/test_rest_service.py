"""Models, health, metrics, documentation and what every HTTP answer carries, in process."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import httpx
import pytest
from jsonref_check import unresolved_references

from conveyor.api.rest.app import create_app
from conveyor.api.rest.service import create_metrics_app
from conveyor.lifecycle.phase import Lifecycle, Phase

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(gateway, lifecycle, metrics, limits) -> AsyncIterator[httpx.AsyncClient]:
    """Speaks to the application without a socket."""
    transport = httpx.ASGITransport(create_app(gateway, lifecycle, metrics, limits, metrics.scrape))
    async with httpx.AsyncClient(transport=transport, base_url="http://conveyor") as client:
        yield client


async def test_models_are_listed_without_what_is_not_known(client: httpx.AsyncClient) -> None:
    """A description has the names of the interface; what does not apply is left out."""
    echo = {
        "name": "echo",
        "task": "sentiment",
        "version": "3",
        "versions": ["1", "3"],
        "state": "ready",
        "default": True,
        "description": "Says what it hears.",
        "labels": ["negative", "positive"],
        "plan": {"executor": "none"},
    }
    assert {"models": [echo]} == (await client.get("/v1/models")).json()
    assert echo == (await client.get("/v1/models/echo")).json()


async def test_an_unknown_model_is_not_found(client: httpx.AsyncClient) -> None:
    """404 with the error body, outside the task routes too."""
    answer = await client.get("/v1/models/nobody")

    assert (404, "NOT_FOUND") == (answer.status_code, answer.json()["code"])


async def test_health_follows_the_phase(gateway, metrics, limits) -> None:
    """Live always; ready only while requests are accepted, else 503 with Retry-After."""
    lifecycle = Lifecycle()
    transport = httpx.ASGITransport(create_app(gateway, lifecycle, metrics, limits, metrics.scrape))
    seen = []
    async with httpx.AsyncClient(transport=transport, base_url="http://conveyor") as client:
        for phase in Phase:
            lifecycle.set(phase)
            live, ready = await client.get("/health/live"), await client.get("/health/ready")
            seen.append((live.status_code, ready.status_code, ready.headers.get("retry-after")))
            last = live

    assert [(200, 503, "1"), (200, 200, None), (200, 503, "1")] == seen
    assert "close" == last.headers["connection"], "while draining, clients are asked to close their connections"


async def test_metrics_are_served_on_both_apps(client, metrics) -> None:
    """The same registry, in the type Prometheus expects."""
    await client.post("/v1/sentiment", json={"inputs": "a"})
    answer = await client.get("/metrics")
    transport = httpx.ASGITransport(create_metrics_app(metrics.scrape))
    async with httpx.AsyncClient(transport=transport, base_url="http://conveyor") as scraper:
        scraped = await scraper.get("/metrics")

    assert metrics.content_type == answer.headers["content-type"] == scraped.headers["content-type"]
    assert 'conveyor_requests_total{code="OK",model="echo"' in answer.text
    assert 'conveyor_requests_total{code="OK",model="echo"' in scraped.text


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing/here", 404, "NOT_FOUND"),
        ("POST", "/v1/sentiment/", 404, "NOT_FOUND"),
        ("GET", "/static-offline-docs/none.js", 404, "NOT_FOUND"),
        ("GET", "/v1/sentiment", 405, "INVALID_ARGUMENT"),
        ("DELETE", "/v1/models", 405, "INVALID_ARGUMENT"),
    ],
)
async def test_refusals_of_the_router_have_the_same_body(client, method, path, status, code) -> None:
    """Unknown paths and methods are answered in the one shape; 405 says what is accepted."""
    answer = await client.request(method, path)

    assert (status, {"error", "code"}, code) == (answer.status_code, set(answer.json()), answer.json()["code"])
    assert (status == 405) == ("allow" in answer.headers)
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize("path", ["/v1/models", "/health/live", "/metrics", "/nowhere", "/docs", "/openapi.json"])
async def test_every_answer_carries_the_request_id(client: httpx.AsyncClient, path: str) -> None:
    """The caller's id where it sent one, once."""
    answer = await client.get(path, headers={"X-Request-Id": "trace 42/α".replace("α", "a")})

    assert ["trace 42/a"] == answer.headers.get_list("x-request-id")


@pytest.mark.parametrize("given", [b"x" * 129, b"caf\xc3\xa9", b"tab\there", b""])
async def test_an_id_that_is_not_printable_ascii_is_replaced(client: httpx.AsyncClient, given: bytes) -> None:
    """What goes into headers and logs is 1 to 128 printable ASCII characters."""
    answer = await client.get("/health/live", headers=[(b"X-Request-Id", given)])

    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


async def test_a_fault_outside_the_tasks_is_answered_too(client, gateway) -> None:
    """An exception that no route handles is a 500 of the same shape."""
    gateway.error = RuntimeError("secret")
    answer = await client.get("/v1/models")

    assert (500, "INTERNAL") == (answer.status_code, answer.json()["code"])
    assert answer.headers["x-request-id"] in answer.json()["error"]
    assert "secret" not in answer.text


async def test_the_documentation_needs_no_other_server(client: httpx.AsyncClient) -> None:
    """Every address the page loads is ours and answers, and it asks no validator."""
    page = (await client.get("/docs")).text
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page)

    assert 3 == len(loaded), "script, style sheet and icon"
    assert [200, 200, 200] == [(await client.get(address)).status_code for address in loaded]
    assert "http" not in re.sub(r"window\.location\.origin", "", page).replace("https://github.com", "")
    assert '"validatorUrl": null' in page
    assert 404 == (await client.get("/redoc")).status_code


async def test_openapi_describes_what_is_checked(client: httpx.AsyncClient) -> None:
    """Each task documents its body, its answer and every error; each reference resolves; nothing mentions 422."""
    document = (await client.get("/openapi.json")).json()

    assert set() == unresolved_references(document)
    assert "HTTPValidationError" not in document["components"]["schemas"]
    for task in ("sentiment", "tag", "forecast"):
        operation = document["paths"][f"/v1/{task}"]["post"]
        request = document["components"]["schemas"][f"{task.capitalize()}Body"]
        assert {"200", "400", "401", "403", "404", "413", "429", "500", "503", "504", "default"} == set(
            operation["responses"]
        )
        assert not request["additionalProperties"]
        for example in request["examples"]:
            assert 200 == (await client.post(f"/v1/{task}", json=example)).status_code
    assert ["mean", "quantiles", "targets"] == document["components"]["schemas"]["Forecast"]["required"]


async def test_what_is_documented_is_answered(client: httpx.AsyncClient) -> None:
    """Every operation has a name of its own, and its path and method are answered by a route."""
    document = (await client.get("/openapi.json")).json()
    operations = [(path, method, said) for path, item in document["paths"].items() for method, said in item.items()]
    statuses = set()
    for path, method, _ in operations:
        opened = await client.post("/v1/sessions", json={"model": "forecast-electricity"})
        path = path.replace("{name}", "echo").replace("{session}", opened.json()["session"])
        statuses.add((await client.request(method, path, content=b"{}")).status_code)

    assert {"/v1/sentiment", "/v1/tag", "/v1/forecast"} <= {path for path, method, _ in operations if method == "post"}
    assert "sentiment_v1_sentiment_post" in {said["operationId"] for _, _, said in operations}
    assert len(operations) == len({said["operationId"] for _, _, said in operations})
    assert {200, 400} == statuses
