"""The answer for an input does not depend on what else is computed with it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conveyor.domain import Series
from conveyor.gateway.call import Call
from conveyor.lifecycle.phase import Phase
from conveyor.settings import ServeSettings
from conveyor.spec import Task
from conveyor.wiring.core import Core, build_core
from conveyor.wiring.engines import engine_lost
from support.packages import write_tiny_models

RELAXED = settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

words = st.lists(st.sampled_from("the a good bad film was not ships , . !".split()), max_size=60).map(" ".join)  # noqa: SIM905
sentences = st.text(alphabet="今天气很好我们去公园走 ，。a1", max_size=60)
histories = st.lists(st.one_of(st.none(), st.floats(-1e4, 1e4)), min_size=1, max_size=60).filter(
    lambda values: any(value is not None for value in values)
)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """One event loop for all examples."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def core(runner: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Core]:
    """A gateway over a real engine with tiny packages."""
    models = write_tiny_models(tmp_path_factory.mktemp("models"))

    async def start() -> Core:
        core = build_core(ServeSettings(models=models, device="cpu", batch_rows=8), engine_lost)
        await core.start()
        await core.load_models(models)
        core.lifecycle.set(Phase.READY)
        return core

    async def stop(core: Core) -> None:
        await core.engine.drain()

    core = runner.run(start())
    yield core
    runner.run(stop(core))


def call(task: Task) -> Call:
    """A request without a deadline."""
    return Call(task, "test", "id", math.inf)


@RELAXED
@given(texts=st.lists(words, min_size=1, max_size=20), chance=st.randoms())
def test_sentiment_alone_equals_sentiment_in_any_batch_and_order(
    runner: asyncio.Runner, core: Core, texts: list[str], chance: object
) -> None:
    """Labels are equal and probabilities within 1e-5, whatever the neighbours, the order and the padding."""

    async def ask(inputs: list[str]) -> list[dict[str, float]]:
        return [dict(r.scores) for r in (await core.gateway.sentiment(call("sentiment"), inputs, None, None)).results]

    alone = [runner.run(ask([text]))[0] for text in texts]
    order = list(range(len(texts)))
    chance.shuffle(order)  # type: ignore[attr-defined]
    together = runner.run(ask([texts[i] for i in order]))
    for position, index in enumerate(order):
        assert max(alone[index], key=alone[index].get) == max(together[position], key=together[position].get)
        assert pytest.approx(alone[index], abs=1e-5) == together[position]


@pytest.mark.parametrize("model", ["pos-en", "segment-zh"])
@RELAXED
@given(data=st.data())
def test_tags_alone_equal_tags_in_any_batch(
    runner: asyncio.Runner, core: Core, model: str, data: st.DataObject
) -> None:
    """Tags and spans are equal and probabilities within 1e-5, the CRF's marginals included."""
    texts = data.draw(st.lists(words if model == "pos-en" else sentences, min_size=1, max_size=12))

    async def ask(inputs: list[str]) -> list[tuple[list[tuple[str, str]], list[tuple[int, int]], list[float]]]:
        answer = await core.gateway.tag(call("tag"), inputs, None, model, None)
        return [
            (
                [(token.text, token.tag) for token in result.tokens],
                [(span.start, span.end) for span in result.spans],
                [token.score for token in result.tokens],
            )
            for result in answer.results
        ]

    together = runner.run(ask(texts))
    for text, (tags, spans, scores) in zip(texts, together, strict=True):
        tags_alone, spans_alone, scores_alone = runner.run(ask([text]))[0]
        assert tags_alone == tags
        assert spans_alone == spans
        assert pytest.approx(scores_alone, abs=1e-5) == scores


@RELAXED
@given(series=st.lists(histories, min_size=1, max_size=12))
def test_forecasts_alone_equal_forecasts_in_any_batch(
    runner: asyncio.Runner, core: Core, series: list[list[float | None]]
) -> None:
    """Forecasts agree to 1e-5 of the series' own scale."""

    async def ask(histories: list[list[float | None]]) -> list[np.ndarray]:
        items = [Series(np.array(values, dtype=np.float64).reshape(-1, 1)) for values in histories]
        answer = await core.gateway.forecast(call("forecast"), items, None, None, None, None)
        return [np.array(result.mean) for result in answer.results]

    for values, forecast in zip(series, runner.run(ask(series)), strict=True):
        alone = runner.run(ask([values]))[0]
        scale = max(1.0, np.nanmax(np.abs(np.array(values, dtype=np.float64))))
        assert np.abs(alone - forecast).max() <= 1e-5 * scale
