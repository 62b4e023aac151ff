"""The server's configuration: parsed once, immutable, passed down as the smallest part needed.

Every option of `conveyor serve` is a field here, and so are secrets, which are no options. A flag beats
`CONVEYOR_<OPTION>` in the environment, which beats the TOML file, which beats the default.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, SecretStr, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

__all__ = ["ENVIRONMENT_PREFIX", "SECRETS", "ServeSettings"]

ENVIRONMENT_PREFIX = "CONVEYOR_"

# Settings that come from the environment or the file only: others could see what stands on a command line.
SECRETS = frozenset({"state_key"})


def _known_device(device: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise ValueError("accepted are auto, cpu, cuda and cuda:N")
    return device


Port = Annotated[int, Field(ge=0, le=65_535)]


class ServeSettings(BaseSettings):
    """What `conveyor serve` can be told."""

    model_config = SettingsConfigDict(env_prefix=ENVIRONMENT_PREFIX, extra="forbid", frozen=True)
    toml_file: ClassVar[Path | None] = None

    models: Path = Field(default=Path("models"), description="Directory of model packages.")
    device: Annotated[str, AfterValidator(_known_device)] = Field(
        default="auto", description="Where models run: auto (CUDA if there is any), cpu, cuda or cuda:N."
    )
    precision: Literal["auto", "auto-float32", "float32", "bfloat16", "int8", "float16"] = Field(
        default="auto",
        description="Arithmetic: auto follows each package's plan.lock, and is float32 without one that holds on this "
        "device; auto-float32 takes the fastest there that computes in float32, float32 the reference; the others hold "
        "for every model. int8 is for CPUs, float16 for CUDA.",
    )
    frontends: int | None = Field(
        default=None,
        ge=0,
        le=64,
        description="Processes that speak gRPC, and as many of them as --http-frontends says HTTP too, beside those of "
        "the engines; 0 for one process that does all. By default one for each core, or as many as --http-frontends.",
    )
    http_frontends: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="How many of the front ends speak HTTP. By default all of them before a CUDA device, else one for "
        "each engine.",
    )
    engines: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="Processes that run models, if there are front ends. By default one for a CUDA device, else one "
        "for two cores.",
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on; 0.0.0.0 for every interface.")
    http_port: Port = Field(default=8000, description="Port of HTTP; 0 for any free one.")
    grpc_port: Port = Field(default=8001, description="Port of gRPC; 0 for any free one.")
    metrics_port: Port = Field(default=8002, description="Second port of /metrics; 0 for any free one.")
    default_sentiment: str = Field(default="sentiment-en", description="Model when a sentiment request names none.")
    default_tag: str = Field(default="pos-en", description="Model when a tag request names none.")
    default_forecast: str = Field(
        default="forecast-electricity", description="Model when a forecast request names none."
    )
    batch_rows: int = Field(default=64, ge=1, le=4096, description="Largest batch, in rows.")
    batch_steps: int = Field(
        default=65_536, ge=1, description="Largest batch, in rows times longest row; bounds memory of one execution."
    )
    queue_rows: int = Field(
        default=8192, ge=1024, description="Rows accepted and not yet answered; more are refused with 429."
    )
    queue_size: int = Field(
        default=64 * 2**20,
        ge=2**20,
        description="Code points and values accepted and not yet answered; bounds memory.",
    )
    max_body_bytes: int = Field(default=8 * 2**20, ge=8 * 2**20, description="Largest request body, in bytes.")
    max_items: int = Field(default=1024, ge=1024, description="Most inputs or series in one request.")
    max_text: int = Field(default=1_000_000, ge=1_000_000, description="Longest text, in code points.")
    max_values: int = Field(default=100_000, ge=100_000, description="Longest series, in values over all features.")
    request_timeout: float = Field(
        default=300.0, gt=0, le=3600, description="Seconds a request may take if its caller sets no deadline."
    )
    drain_timeout: float = Field(
        default=30.0, ge=0, le=3600, description="Seconds that running requests get to finish after SIGTERM."
    )
    session_idle_s: float = Field(
        default=3600.0, gt=0, le=365 * 86_400, description="Seconds without use after which a session ends."
    )
    session_memory: int = Field(
        default=2**30,
        ge=2**20,
        description="Bytes for the states of sessions of a model on the device; those used longest ago move to host "
        "memory.",
    )
    session_host_memory: int = Field(
        default=2**30,
        ge=0,
        description="Bytes for the states of sessions of a model in host memory; beyond it they move to the state "
        "directory, or, without one, no more are opened.",
    )
    session_quota: int = Field(
        default=1_000_000, ge=1, description="Live sessions of a model; more are refused with 429."
    )
    session_checkpoint_s: float = Field(
        default=10.0,
        ge=0,
        le=86_400,
        description="Seconds after which sessions that changed are written to the state directory: what a killed "
        "process loses at most. 0 writes them at an ordered end only.",
    )
    state_dir: Path | None = Field(
        default=None,
        description="Directory that keeps sessions over a restart. Without one they end with the server.",
    )
    state_key: SecretStr | None = Field(
        default=None,
        min_length=16,
        description="Signs the states of sessions that are exported; servers with the same key take each other's. By "
        "default a random one of this server.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe log lines shown."
    )

    @model_validator(mode="after")
    def _any_request_fits_the_queue(self) -> ServeSettings:
        if self.queue_rows < self.max_items:
            raise ValueError(f"queue_rows must be at least max_items ({self.max_items}), or a request could never fit")
        if self.queue_size < self.max_body_bytes:
            raise ValueError(f"queue_size must be at least max_body_bytes ({self.max_body_bytes})")
        return self

    @model_validator(mode="after")
    def _http_is_spoken_by_front_ends(self) -> ServeSettings:
        if self.frontends is not None and (self.http_frontends or 0) > self.frontends:
            raise ValueError(f"http_frontends must be at most frontends ({self.frontends}); got {self.http_frontends}")
        return self

    @classmethod
    def read(cls, flags: Mapping[str, object], file: Path | None) -> ServeSettings:
        """Merges flags, environment and file.

        Raises:
            pydantic.ValidationError: A value is not acceptable or a key of the file is unknown.
            tomllib.TOMLDecodeError: The file is not TOML.
        """
        bound = type("ServeSettings", (cls,), {"toml_file": file})
        settings: ServeSettings = bound(**flags)
        return settings

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then the environment, then the file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=cls.toml_file)
