"""Random load on a real server: whatever the others do, an answer is the one that the text gets alone."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.server import ServerProcess

WORDS = ("a", "good", "bad", "film", "not", "very", "the", "plot")
WITHIN_S = 60


@dataclass(frozen=True)
class Plan:
    """One request of a schedule.

    after_s: when it is sent. leaves_s: when its caller goes away, if it does.
    """

    words: int
    first: int
    after_s: float
    timeout_s: float | None
    priority: str
    leaves_s: float | None

    @property
    def text(self) -> str:
        """What is sent."""
        return " ".join(WORDS[(self.first + n) % len(WORDS)] for n in range(self.words))


PLANS = st.builds(
    Plan,
    words=st.one_of(st.integers(0, 60), st.sampled_from([400, 3000])),
    first=st.integers(0, 3),
    after_s=st.floats(0, 0.05),
    timeout_s=st.sampled_from([None, None, 0.002, 0.05, 30.0]),
    priority=st.sampled_from(["high", "normal", "low"]),
    leaves_s=st.sampled_from([None, None, None, 0.0, 0.01]),
)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(plans=st.lists(PLANS, min_size=20, max_size=60))
def test_every_request_ends_once_and_right(tiny_server: ServerProcess, plans: list[Plan]) -> None:
    """Answered as alone, refused as late, or abandoned; none waits for ever, and nothing is left behind."""
    outcomes = asyncio.run(_run(tiny_server, plans))

    with httpx.Client(base_url=tiny_server.http, timeout=WITHIN_S, trust_env=False) as http:
        alone = {
            plan.text: http.post("/v1/sentiment", json={"inputs": plan.text}).json()["results"][0] for plan in plans
        }
        assert 200 == http.get("/health/ready").status_code
    for plan, answer in zip(plans, outcomes, strict=True):
        if answer is None:
            assert plan.leaves_s is not None
        elif answer.status_code == 504:
            assert plan.timeout_s is not None
            assert "DEADLINE_EXCEEDED" == answer.json()["code"]
        else:
            assert 200 == answer.status_code, answer.text
            (result,) = answer.json()["results"]
            assert alone[plan.text]["label"] == result["label"]
            assert abs(alone[plan.text]["score"] - result["score"]) <= 1e-6


async def _run(server: ServerProcess, plans: list[Plan]) -> list[httpx.Response | None]:
    limits = httpx.Limits(max_connections=len(plans))
    async with httpx.AsyncClient(base_url=server.http, timeout=WITHIN_S, limits=limits, trust_env=False) as http:
        return await asyncio.gather(*(_ask(http, plan) for plan in plans))


async def _ask(http: httpx.AsyncClient, plan: Plan) -> httpx.Response | None:
    await asyncio.sleep(plan.after_s)
    headers = {"X-Request-Priority": plan.priority}
    if plan.timeout_s is not None:
        headers["X-Request-Timeout"] = str(plan.timeout_s)
    try:
        async with asyncio.timeout(plan.leaves_s):
            return await http.post("/v1/sentiment", json={"inputs": plan.text}, headers=headers)
    except TimeoutError:
        return None
