"""Packages into service: read, put on the engine, replay the samples through the path that serves, then serve."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import structlog

from conveyor.domain import ModelKey
from conveyor.errors import ConveyorError, PackageError, Problem, Unavailable
from conveyor.gateway.answering import Answering
from conveyor.gateway.call import Call
from conveyor.gateway.catalogue import Catalogue, Entry, State
from conveyor.gateway.codecs import Codec, SentimentCodec, TagCodec, build_codec
from conveyor.gateway.items import series_item, text_item, text_or_tokens_item
from conveyor.gateway.limits import Limits
from conveyor.gateway.translation import ForecastItems, Items, SentimentItems, TagItems
from conveyor.repository.files import MANIFEST
from conveyor.repository.manifest import read_manifest
from conveyor.repository.package import Package, read_package
from conveyor.repository.samples import Sample, difference
from conveyor.telemetry.metrics import Metrics
from conveyor.wire.port import EnginePort

__all__ = ["Loader"]

ValueT = TypeVar("ValueT")

_log = structlog.get_logger(__name__)

# Replaying is part of loading and has no caller who could set a deadline; a package that takes longer is broken.
_REPLAY_TIMEOUT_S = 60.0


class Loader:
    """Puts packages into service, one at a time. Event loop only."""

    def __init__(
        self, engine: EnginePort, answering: Answering, catalogue: Catalogue, metrics: Metrics, limits: Limits
    ) -> None:
        self._engine = engine
        self._answering = answering
        self._catalogue = catalogue
        self._metrics = metrics
        self._limits = limits

    async def load(self, key: ModelKey, directory: Path) -> None:
        """Loads one package; one that is refused stands in the catalogue with the reason, the others serve.

        Raises:
            Unavailable: The engine was lost.
        """
        started = time.monotonic()
        entry = Entry(key)
        self._catalogue.put(entry)
        try:
            entry.codec = await self.verify(key, directory, entry)
        except PackageError as error:
            entry.state, entry.reason = State.FAILED, error.message
            _log.error("model refused", model=key.name, version=key.version, reason=error.message)
            return
        entry.state = State.READY
        duration_s = time.monotonic() - started
        self._metrics.model_loaded(key, duration_s)
        _log.info("model loaded", model=key.name, version=key.version, duration_s=round(duration_s, 3))

    async def verify(self, key: ModelKey, directory: Path, entry: Entry) -> Codec:
        """Puts a package on the engine if it is in order and reproduces its samples; leaves nothing there if not.

        Args:
            entry: Gets the description as soon as it can be read, whatever else is wrong.

        Raises:
            PackageError: With every problem that could be found.
            Unavailable: The engine has stopped.
        """
        problems: list[Problem] = []
        package = await _collect(problems, asyncio.to_thread(read_package, directory, key))
        # A package with problems elsewhere may still have a sound description to check the rest against.
        spec = package.spec if package else await _collect([], asyncio.to_thread(read_manifest, directory / MANIFEST))
        entry.spec = spec
        codec = await _collect(problems, asyncio.to_thread(build_codec, spec, directory)) if spec else None
        loaded = await _collect(problems, self._on_engine(key, directory)) if spec else None
        try:
            if package and codec and loaded:
                problems += await self._replay(package, codec)
                if not problems:
                    loaded = False
                    return codec
        finally:
            if loaded:
                with suppress(Unavailable):
                    await self._engine.unload(key)
        raise PackageError(list(dict.fromkeys(problems)))

    async def _on_engine(self, key: ModelKey, directory: Path) -> bool:
        await self._engine.load(key, directory)
        return True

    async def _replay(self, package: Package, codec: Codec) -> list[Problem]:
        """Answers every sample as a request is answered; returns what differs from the stated output."""
        problems = []
        for sample in package.samples:
            try:
                actual = await self._answer(package, codec, sample)
                found = difference(sample.output, actual, package.spec.tolerance)
            except Unavailable:
                raise
            except ConveyorError as error:
                where = f".{error.field}" if error.field else ""
                problems.append(Problem("samples.jsonl", f"line {sample.line}{where}", error.message))
            except (ArithmeticError, ValueError) as error:
                # Numbers in a sample that no request could hold.
                problems.append(Problem("samples.jsonl", f"line {sample.line}", f"cannot be replayed: {error}"))
            else:
                if found:
                    problems.append(Problem("samples.jsonl", f"line {sample.line}", found))
        return problems

    async def _answer(self, package: Package, codec: Codec, sample: Sample) -> Mapping[str, object]:
        call = Call(package.spec.task, "replay", f"line {sample.line}", time.monotonic() + _REPLAY_TIMEOUT_S)
        items: Items[Any]
        if isinstance(codec, SentimentCodec):
            items = SentimentItems(codec, [text_item(sample.input, "input")], self._limits)
        elif isinstance(codec, TagCodec):
            items = TagItems(codec, [text_or_tokens_item(sample.input, "input")], self._limits)
        else:
            series = [series_item(sample.input, "input")]
            items = ForecastItems(codec, series, sample.horizon, sample.quantiles, self._limits)
        results: Sequence[Any] = await self._answering.results(call, package.key, items)
        return {name: value for name, value in asdict(results[0]).items() if value is not None}


async def _collect(problems: list[Problem], work: Awaitable[ValueT]) -> ValueT | None:
    """The outcome of `work`, or None with its problems added to the list."""
    try:
        return await work
    except PackageError as error:
        problems += error.problems
        return None
