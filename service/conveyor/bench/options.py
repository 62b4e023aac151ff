"""What `conveyor bench` can be told."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from conveyor.spec import Task

__all__ = ["BenchOptions", "Protocol"]

Protocol = Literal["http", "grpc"]

# At 10 million arrivals the times alone take 80 MB.
_MAX_ARRIVALS = 10_000_000


class BenchOptions(BaseModel):
    """One measurement. A wrong value is refused when this is made, by its field."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(description="http://HOST:PORT or grpc://HOST:PORT.")
    task: Task = Field(default="sentiment", description="What is asked.")
    model: str | None = Field(default=None, description="Name of the model; the task's default otherwise.")
    protocol: Protocol | None = Field(default=None, description="Follows from the URL; grpc needs --grpc with http.")
    grpc: str | None = Field(
        default=None, description="HOST:PORT of gRPC where the URL is that of HTTP, which then gives the metrics."
    )
    rate: float | None = Field(
        default=None,
        gt=0,
        le=20_000,
        description="Open loop: Poisson arrivals, requests per second on average. Closed loop without it.",
    )
    connections: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="Closed loop: connections, each of which asks again once it is answered [8]. "
        "Open loop: the most there may be [HTTP 512, gRPC 8].",
    )
    streams: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="gRPC: requests at once on a connection [closed loop 1, open loop 64].",
    )
    duration: float = Field(default=10.0, gt=0, le=3600, description="Seconds that are measured.")
    warmup: float = Field(default=2.0, ge=0, le=600, description="Seconds of the same load beforehand, not measured.")
    items: int = Field(default=1, ge=1, le=1024, description="Texts or series a request.")
    input: Path | None = Field(
        default=None,
        description="FILE.jsonl: an item a line, as for `conveyor infer`; any other file: a text a line. [own ones]",
    )
    deadline: float | None = Field(
        default=None, gt=0, le=3600, description="Seconds, sent with each request; goodput counts answers within it."
    )
    seed: int = Field(default=0, ge=0, description="Of the arrivals and of the order of the items.")
    metrics_url: str | None = Field(
        default=None, description="Where the server's metrics are; URL/metrics where the URL is that of HTTP."
    )
    allow_remote: bool = Field(
        default=False,
        description="Load a machine other than this one. Off, because a load generator that is pointed at somebody "
        "else's server by mistake is an attack on it.",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> BenchOptions:
        if self.rate is not None and self.rate * max(self.duration, self.warmup) > _MAX_ARRIVALS:
            raise ValueError(f"rate times duration must be at most {_MAX_ARRIVALS:,} requests")
        return self
