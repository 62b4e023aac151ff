"""What the process that watches and the others tell each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from conveyor.telemetry.merge import Family
from conveyor.wire.codec import Codec

__all__ = [
    "CONTROL",
    "Begin",
    "Close",
    "Collect",
    "Collected",
    "Drain",
    "Failed",
    "Idle",
    "Open",
    "Opened",
    "Page",
    "Ready",
    "Role",
    "TellPage",
]


class Role(StrEnum):
    """What a process is for."""

    FRONT_END = "front end"
    ENGINE = "engine"


@dataclass(frozen=True, slots=True)
class Begin:
    """To a new process: what it is.

    settings: `ServeSettings` as JSON.
    number: of an engine, from 0 on; one that is started in the place of another has the same.
    num_engines: how many there should be.
    state_key: signs exported sessions; empty for a front end.
    http_fd: the listening socket that a front end inherits; None for one without HTTP and for an engine.
    grpc_port: the port that the server holds for its front ends.
    """

    role: Role
    settings: str
    number: int
    num_engines: int
    state_key: bytes
    http_fd: int | None
    grpc_port: int


@dataclass(frozen=True, slots=True)
class Ready:
    """From a front end: its models answer. From an engine: it has its device.

    models: a line for each version, whether it serves or not.
    """

    device: str
    models: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """From any: it can't begin or go on, and starting it again would not help."""

    reason: str


@dataclass(frozen=True, slots=True)
class Open:
    """To any: the server takes requests from now on."""


@dataclass(frozen=True, slots=True)
class Opened:
    """From a front end: it takes requests."""


@dataclass(frozen=True, slots=True)
class Drain:
    """To any: answer what was accepted. An engine ends then, a front end waits for `Close`."""


@dataclass(frozen=True, slots=True)
class Idle:
    """From a front end that drains: what it accepted is answered. It still refuses what is new."""


@dataclass(frozen=True, slots=True)
class Close:
    """To a front end that drains: end, for no other has anything left either, or the grace is over."""


@dataclass(frozen=True, slots=True)
class Collect:
    """To any: tell what was counted. number: repeated by the answer."""

    number: int


@dataclass(frozen=True, slots=True)
class Collected:
    """From any: what it counted."""

    number: int
    families: Sequence[Family]


@dataclass(frozen=True, slots=True)
class TellPage:
    """From a front end: somebody asked it for the metrics of the server."""

    number: int


@dataclass(frozen=True, slots=True)
class Page:
    """To that front end: the metrics of all processes, as text."""

    number: int
    text: bytes


CONTROL = Codec([Begin, Ready, Failed, Open, Opened, Drain, Idle, Close, Collect, Collected, TellPage, Page])
