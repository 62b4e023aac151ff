"""`conveyor evaluate`: a package's scores, answered by the path that serves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from conveyor.domain import Answer, Forecast, Sentiment, Series, Tagging
from conveyor.gateway.call import Call
from conveyor.gateway.gateway import Gateway
from conveyor.settings import ServeSettings
from conveyor.spec import PackageSpec
from conveyor.training.evaluate import dev_parts, deviations, read_part
from conveyor.training.evaluate import evaluate as score
from conveyor.training.examples import Example
from conveyor.training.recipe import load_recipe
from conveyor.wiring.core import Core, build_core
from conveyor.wiring.engines import engine_lost
from conveyor.wiring.offline import OFFLINE_TIMEOUT_S, load_model
from conveyor.wiring.recipes import find_recipe

__all__ = ["evaluate"]

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

# Items a request, small enough for the limits of any and large enough to fill batches.
_ITEMS = 256


def evaluate(settings: ServeSettings, model: str, version: str | None, data: Path) -> Mapping[str, Mapping[str, float]]:
    """Scores a model on one file, or on the development parts that its recipe names under a folder.

    Returns:
        Measures by name, by part.

    Raises:
        NotFound: There is no such model.
        PackageError: The model's package is refused.
        InvalidArgument: The data is missing or not what it should be.
    """
    with asyncio.Runner() as runner:
        core = runner.run(_build(settings))
        try:
            spec = runner.run(load_model(core, settings, model, version))
            predict = _Served(core.gateway, runner, spec, version)
            parts, deviation = _parts(spec, data)
            return {name: score(spec, part, predict, deviation) for name, part in parts.items()}
        finally:
            runner.run(_drain(core))


async def _drain(core: Core) -> None:
    await core.engine.drain()


async def _build(settings: ServeSettings) -> Core:
    return build_core(settings, engine_lost)


def _parts(spec: PackageSpec, data: Path) -> tuple[Mapping[str, Sequence[Example]], npt.NDArray[np.float64] | None]:
    """What to score, and where a recipe tells, the deviations of a forecast's targets."""
    if data.is_file():
        return {data.name: read_part(data, spec.task)}, None
    recipe = load_recipe(find_recipe(spec.name))
    return dev_parts(recipe, data), deviations(recipe, data)


class _Served:
    """`Predict` by way of the gateway, a request at a time, from outside its event loop."""

    def __init__(self, gateway: Gateway, runner: asyncio.Runner, spec: PackageSpec, version: str | None) -> None:
        self._gateway = gateway
        self._runner = runner
        self._spec = spec
        self._version = version

    def sentiment(self, texts: Sequence[str]) -> Sequence[Sentiment]:
        """One answer a text."""
        return self._ask(
            texts, lambda call, items: self._gateway.sentiment(call, items, self._spec.name, self._version)
        )

    def tag(self, items: Sequence[str] | Sequence[Sequence[str]]) -> Sequence[Tagging]:
        """One answer a text, or a list of tokens; all of one kind."""
        texts = [item for item in items if isinstance(item, str)]
        if texts:
            return self._ask(
                texts, lambda call, some: self._gateway.tag(call, some, None, self._spec.name, self._version)
            )
        tokens = [list(item) for item in items]
        return self._ask(tokens, lambda call, some: self._gateway.tag(call, None, some, self._spec.name, self._version))

    def forecast(self, series: Sequence[Series]) -> Sequence[Forecast]:
        """One answer a series, with the model's default horizon and quantiles."""
        return self._ask(
            series,
            lambda call, items: self._gateway.forecast(call, items, None, None, self._spec.name, self._version),
        )

    def _ask(
        self, items: Sequence[ItemT], ask: Callable[[Call, Sequence[ItemT]], Awaitable[Answer[ResultT]]]
    ) -> list[ResultT]:
        results: list[ResultT] = []
        for start in tqdm(range(0, len(items), _ITEMS), unit=f"×{_ITEMS} items", dynamic_ncols=True):
            results += self._runner.run(self._one(items[start : start + _ITEMS], ask)).results
        return results

    async def _one(
        self, items: Sequence[ItemT], ask: Callable[[Call, Sequence[ItemT]], Awaitable[Answer[ResultT]]]
    ) -> Answer[ResultT]:
        return await ask(Call(self._spec.task, "evaluate", "", time.monotonic() + OFFLINE_TIMEOUT_S), items)
