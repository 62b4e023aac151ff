"""What the numbers were measured with."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import version
from pathlib import Path

from pydantic import BaseModel, ConfigDict

__all__ = ["Machine", "describe_machine"]

_PACKAGES = ("conveyor", "aiohttp", "grpcio", "hdrhistogram")


class Machine(BaseModel):
    """The client's machine. cores: those this process may use."""

    model_config = ConfigDict(frozen=True)

    cpu: str
    cores: int
    system: str
    versions: dict[str, str]


def describe_machine() -> Machine:
    """Asks the system."""
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    return Machine(
        cpu=found[1] if found else platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        system=platform.platform(),
        versions={"python": platform.python_version()} | {name: version(name) for name in _PACKAGES},
    )
