"""What the engine is told about sessions."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["IN_MEMORY", "SessionOptions"]

_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """Bounds and places.

    idle_s: seconds without use after which a session ends.
    device_bytes, host_bytes: room for states on the device and, of the sessions used longest ago, in host memory.
    quota: live sessions of a model in this engine.
    rows: opens and appends that wait.
    values: numbers in them.
    step_rows: sessions that are advanced in one execution.
    lane_rows: long appends of a model under way at once.
    slice_s: seconds after which other sessions get their turn.
    state_key: signs states that are exported; by default nobody else has it.
    state_dir: where sessions are written to; None keeps them in memory only.
    checkpoint_s: seconds after which what changed is written; 0 for at the end only.
    engine, num_engines: which of how many engines this is.
    """

    idle_s: float = 3600.0
    device_bytes: int = 2**30
    host_bytes: int = 2**30
    quota: int = 1_000_000
    rows: int = 65_536
    values: int = 64 * 2**20
    step_rows: int = 2048
    lane_rows: int = 16
    slice_s: float = 0.005
    state_key: bytes = field(default_factory=lambda: secrets.token_bytes(_KEY_BYTES), repr=False)
    state_dir: Path | None = None
    checkpoint_s: float = 10.0
    engine: int = 0
    num_engines: int = 1


# Sessions that nothing is left of when the process ends.
IN_MEMORY = SessionOptions()
