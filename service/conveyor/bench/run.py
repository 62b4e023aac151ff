"""One measurement from the options to the report."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import aiohttp

from conveyor.bench.arrivals import poisson_arrivals
from conveyor.bench.client import CLIENT_PREFIX, Client
from conveyor.bench.grpc_client import GrpcClient
from conveyor.bench.http_client import HttpClient
from conveyor.bench.inputs import own_items, read_items
from conveyor.bench.load import Load, plan_load
from conveyor.bench.loops import Interruption, drive_closed, drive_open
from conveyor.bench.machine import describe_machine
from conveyor.bench.options import BenchOptions
from conveyor.bench.payloads import build_payloads
from conveyor.bench.report import Failures, Quantiles, Report
from conveyor.bench.server_split import Reading, ServerSplit, difference, parse_reading
from conveyor.bench.tally import OVERFLOW, Tally
from conveyor.errors import Code, InvalidArgument, Unavailable

__all__ = ["run"]

_FIRST_ANSWER_S = 30.0
_METRICS_TIMEOUT_S = 10.0
# What the first request ends with, all others will.
_HOPELESS = {Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.UNAUTHENTICATED, Code.PERMISSION_DENIED}
# A latency is the server's as long as the client's own part in it is small.
_LAG_SHARE = 0.1
_LAG_MS = 1.0
_CPU_SHARE = 0.8


def run(options: BenchOptions) -> Report:
    """Puts the load on the server and reports what came of it.

    Called from the main thread: SIGINT and SIGTERM end the measurement early, with a report of what was done.

    Raises:
        InvalidArgument: The options contradict each other, or the server refuses the very first request for what it
            is; `field` names the option or the place in the input.
        Unavailable: The server does not answer at all.
    """
    load = plan_load(options)
    items = own_items(options.task) if options.input is None else read_items(options.input, options.task)
    payloads = build_payloads(
        items,
        task=options.task,
        protocol=load.protocol,
        model=options.model,
        items_per_request=options.items,
        seed=options.seed,
    )
    return asyncio.run(_run(options, load, payloads))


@dataclass(slots=True)
class _Measurement:
    """What was seen, before it is interpreted. before, after: None if the metrics were not read."""

    tally: Tally
    started: datetime
    elapsed_s: float
    cpu_s: float
    interrupted: bool
    before: Reading | None
    after: Reading | None
    notes: list[str]


async def _run(options: BenchOptions, load: Load, payloads: Sequence[bytes]) -> Report:
    client_type = HttpClient if load.protocol == "http" else GrpcClient
    client: Client = client_type(load, options.task, options.deadline)
    try:
        await _first_answer(client, payloads[0], load)
        with _interruption() as interruption:
            measurement = await _measure(options, load, client, payloads, interruption)
    finally:
        await client.close()
    return _report(options, load, measurement)


@contextmanager
def _interruption() -> Iterator[Interruption]:
    interruption = Interruption()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interruption.set)
    try:
        yield interruption
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def _first_answer(client: Client, payload: bytes, load: Load) -> None:
    """Makes sure that somebody is there who understands the requests."""
    try:
        answer = await asyncio.wait_for(client.ask(payload, 0), _FIRST_ANSWER_S)
    except TimeoutError as error:
        raise Unavailable(f"{load.address} gave no answer for {_FIRST_ANSWER_S:g} s") from error
    if answer.code in _HOPELESS:
        raise InvalidArgument(f"the server refuses the requests: {answer.code}: {answer.message}")
    if answer.code.startswith((CLIENT_PREFIX, "HTTP_")) and answer.code != "CLIENT_DEADLINE_EXCEEDED":
        raise Unavailable(f"{load.address} does not answer: {answer.code}: {answer.message}")


async def _measure(
    options: BenchOptions, load: Load, client: Client, payloads: Sequence[bytes], interruption: Interruption
) -> _Measurement:
    notes: list[str] = []
    if options.warmup:
        # Ends before the reading, so that the readings see exactly the requests that are measured. Another seed, so
        # that the measurement is not a repetition.
        await _drive(options, load, client, payloads, options.warmup, options.seed + 1, interruption)
    before = await _read_metrics(load, notes)
    started, cpu_start = datetime.now(UTC), time.process_time()
    tally = await _drive(options, load, client, payloads, options.duration, options.seed, interruption)
    cpu_s = time.process_time() - cpu_start
    # An interrupted measurement lasted until it was stopped.
    end = time.monotonic() if interruption.is_set() else tally.began + options.duration
    elapsed_s = max(0.0, max(end, tally.last_answer) - tally.began)
    after = await _read_metrics(load, notes) if before is not None else None
    return _Measurement(tally, started, elapsed_s, cpu_s, interruption.is_set(), before, after, notes)


async def _drive(
    options: BenchOptions,
    load: Load,
    client: Client,
    payloads: Sequence[bytes],
    duration_s: float,
    seed: int,
    interruption: Interruption,
) -> Tally:
    tally = Tally(options.deadline)
    if options.rate is not None:
        arrivals_s = poisson_arrivals(options.rate, duration_s, seed)
        await drive_open(client, payloads, arrivals_s, load.in_flight, tally, interruption)
    else:
        await drive_closed(client, payloads, duration_s, load.in_flight, tally, interruption)
    return tally


async def _read_metrics(load: Load, notes: list[str]) -> Reading | None:
    if load.metrics_url is None:
        notes.append("the server's metrics were not read: --metrics-url says where they are")
        return None
    try:
        timeout = aiohttp.ClientTimeout(total=_METRICS_TIMEOUT_S)
        async with (
            aiohttp.ClientSession(timeout=timeout, raise_for_status=True) as session,
            session.get(load.metrics_url, allow_redirects=False) as response,
        ):
            return parse_reading(await response.text())
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        notes.append(f"the server's metrics at {load.metrics_url} could not be read: {error or type(error).__name__}")
        return None


def _report(options: BenchOptions, load: Load, seen: _Measurement) -> Report:
    tally = seen.tally
    latency = Quantiles.of(tally.latencies)
    client_lag = Quantiles.of(tally.lags) if load.loop == "open" else None
    cpu_share = _per_s(seen.cpu_s, seen)
    server = _split(seen)
    return Report(
        command=sys.argv,
        started=seen.started.isoformat(timespec="seconds"),
        options=options,
        machine=describe_machine(),
        loop=load.loop,
        protocol=load.protocol,
        connections=load.connections,
        streams=load.streams,
        interrupted=seen.interrupted,
        elapsed_s=seen.elapsed_s,
        arrivals=tally.arrivals,
        sent=tally.arrivals - tally.errors[OVERFLOW.code],
        answered=tally.answered,
        errors={code: Failures(count=count, example=tally.examples[code]) for code, count in tally.errors.items()},
        requests_per_s=_per_s(tally.answered, seen),
        items_per_s=_per_s(tally.answered * options.items, seen),
        goodput_per_s=_per_s(tally.in_time, seen),
        latency=latency,
        latency_histogram=tally.latencies.encode(),
        client_lag=client_lag,
        client_cpu_share=cpu_share,
        server=server,
        server_build=_build(seen.after),
        notes=[*seen.notes, *_doubts(tally.arrivals, latency, client_lag, cpu_share)],
    )


def _per_s(amount: float, seen: _Measurement) -> float:
    # Stopped before it began, a measurement lasted no time.
    return amount / seen.elapsed_s if seen.elapsed_s else 0.0


def _split(seen: _Measurement) -> list[ServerSplit] | None:
    if seen.before is None or seen.after is None:
        return None
    try:
        return difference(seen.before, seen.after)
    except ValueError as error:
        seen.notes.append(str(error))
        return None


def _build(reading: Reading | None) -> dict[str, str]:
    return next((dict(labels) for name, labels in reading or () if name == "conveyor_build_info"), {})


def _doubts(arrivals: int, latency: Quantiles, client_lag: Quantiles | None, cpu_share: float) -> Iterator[str]:
    if not arrivals:
        yield "nothing was measured: the time was over, or the measurement stopped, before a request was due"
    if client_lag is not None and client_lag.p99_ms > max(_LAG_MS, _LAG_SHARE * latency.p99_ms):
        yield (
            f"this client could not keep up: one request in a hundred left {client_lag.p99_ms:.1f} ms late or more, "
            "which is part of the latencies"
        )
    if cpu_share > _CPU_SHARE:
        yield f"this client used {cpu_share:.2f} of a core: it may be the bottleneck, not the server"
