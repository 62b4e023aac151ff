"""`conveyor infer`: a JSON-lines file through the engine that serves, with the same answers."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import IO

from pydantic_core import to_json
from tqdm import tqdm

from conveyor.api.outcome import shown_error
from conveyor.domain import Forecast, Sentiment, Tagging
from conveyor.gateway.call import Call
from conveyor.gateway.gateway import Gateway
from conveyor.gateway.items import parse_line, series_item, text_item, text_or_tokens_item
from conveyor.settings import ServeSettings
from conveyor.spec import Task
from conveyor.wiring.core import build_core
from conveyor.wiring.engines import engine_lost
from conveyor.wiring.offline import OFFLINE_TIMEOUT_S, load_model

__all__ = ["infer"]

# Enough lines in flight to fill the largest batches, and few enough bytes to stay well inside the queue.
_LINES_IN_FLIGHT = 512
_BYTES_IN_FLIGHT = 8 * 2**20


@dataclass(frozen=True, slots=True)
class _Job:
    """What every line is run with."""

    task: Task
    model: str
    version: str | None
    horizon: int | None


async def infer(
    settings: ServeSettings,
    model: str,
    version: str | None,
    horizon: int | None,
    lines: Iterable[bytes],
    results: IO[str],
) -> int:
    """Answers each line in order: one item in, one result out; a line that can't be answered gives its error.

    Returns:
        How many lines gave an error.

    Raises:
        NotFound: There is no such model.
        PackageError: The model's package is refused.
    """
    core = build_core(settings, engine_lost)
    try:
        spec = await load_model(core, settings, model, version)
        job = _Job(spec.task, model, version, horizon)
        return await _run(core.gateway, job, lines, results)
    finally:
        await core.engine.drain()


async def _run(gateway: Gateway, job: _Job, lines: Iterable[bytes], results: IO[str]) -> int:
    waiting: deque[tuple[int, asyncio.Task[bytes]]] = deque()
    in_flight = failed = 0

    async def write_first() -> None:
        nonlocal in_flight, failed
        size, task = waiting.popleft()
        in_flight -= size
        answer = await task
        failed += answer.startswith(b'{"error":')
        results.write(answer.decode() + "\n")
        progress.update()

    with tqdm(unit=" rows", unit_scale=True, dynamic_ncols=True) as progress:
        for number, line in enumerate(lines, start=1):
            while waiting and (len(waiting) >= _LINES_IN_FLIGHT or in_flight + len(line) > _BYTES_IN_FLIGHT):
                await write_first()
            waiting.append((len(line), asyncio.create_task(_answer(gateway, job, number, line))))
            in_flight += len(line)
        while waiting:
            await write_first()
    return failed


async def _answer(gateway: Gateway, job: _Job, number: int, line: bytes) -> bytes:
    try:
        result = await _result(gateway, job, number, line)
        values = {field.name: getattr(result, field.name) for field in fields(result)}
        return to_json({name: value for name, value in values.items() if value is not None})
    except Exception as fault:
        # Whatever is wrong with one line, the others are answered.
        error = shown_error(fault, f"line {number}")
        body = {"error": error.message, "code": error.code.value, "field": error.field}
        return to_json({name: value for name, value in body.items() if value is not None})


async def _result(gateway: Gateway, job: _Job, number: int, line: bytes) -> Sentiment | Tagging | Forecast:
    field = f"line {number}"
    item = parse_line(line, field)
    call = Call(job.task, "infer", field, time.monotonic() + OFFLINE_TIMEOUT_S)
    if job.task == "sentiment":
        texts = [text_item(item, field)]
        return (await gateway.sentiment(call, texts, job.model, job.version)).results[0]
    if job.task == "tag":
        given = text_or_tokens_item(item, field)
        inputs, tokens = ([given], None) if isinstance(given, str) else (None, [given])
        return (await gateway.tag(call, inputs, tokens, job.model, job.version)).results[0]
    series = [series_item(item, field)]
    return (await gateway.forecast(call, series, job.horizon, None, job.model, job.version)).results[0]
