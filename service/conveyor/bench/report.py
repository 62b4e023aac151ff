"""The result of a measurement, as it is stored."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from conveyor.bench.latency import Latencies
from conveyor.bench.machine import Machine
from conveyor.bench.options import BenchOptions
from conveyor.bench.server_split import ServerSplit

__all__ = ["Failures", "Quantiles", "Report"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Quantiles(_Part):
    """Durations in milliseconds; all 0 of none."""

    count: int
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p99_9_ms: float
    max_ms: float

    @classmethod
    def of(cls, latencies: Latencies) -> Quantiles:
        """The usual ones of a histogram."""
        return cls(
            count=latencies.count,
            mean_ms=latencies.mean_ms,
            p50_ms=latencies.quantile_ms(50),
            p90_ms=latencies.quantile_ms(90),
            p99_ms=latencies.quantile_ms(99),
            p99_9_ms=latencies.quantile_ms(99.9),
            max_ms=latencies.max_ms,
        )


class Failures(_Part):
    """Requests that ended with one code. example: the message of the first."""

    count: int
    example: str


class Report(_Part):
    """One measurement.

    loop, connections, streams: as they were after the options were completed.
    elapsed_s: from the first moment of the measurement to its end or the last answer, whichever is later.
    arrivals: requests that were due; each is answered or is counted in one entry of `errors`.
    sent: those of them that left; the others met the bound of requests in flight (CLIENT_OVERFLOW).
    answered: those of them with code OK. The rates are of these.
    errors: by the server's code, `HTTP_<status>` if something else answered, `CLIENT_…` without an answer.
    goodput_per_s: answered within the deadline; all that were answered where there is none.
    latency: of answered requests, from the arrival (open loop) or from sending (closed loop) to the whole answer.
    latency_histogram: the same as HdrHistogram V2, compressed, base 64, values in microseconds.
    client_lag: open loop: how late requests left. It is part of the latency.
    client_cpu_share: CPU time of this process per second; 1.0 is one core.
    server: by model, from the server's metrics; None if they were not read.
    server_build: labels of `conveyor_build_info`.
    notes: what casts doubt on the numbers, a sentence each.
    """

    format_version: Literal[1] = 1
    command: list[str]
    started: str
    options: BenchOptions
    machine: Machine
    loop: Literal["open", "closed"]
    protocol: Literal["http", "grpc"]
    connections: int
    streams: int
    interrupted: bool
    elapsed_s: float
    arrivals: int
    sent: int
    answered: int
    errors: dict[str, Failures]
    requests_per_s: float
    items_per_s: float
    goodput_per_s: float
    latency: Quantiles
    latency_histogram: str
    client_lag: Quantiles | None
    client_cpu_share: float
    server: list[ServerSplit] | None
    server_build: dict[str, str]
    notes: list[str]

    def to_json(self) -> str:
        """Indented JSON, which `Report.model_validate_json` reads back."""
        return self.model_dump_json(indent=2) + "\n"
