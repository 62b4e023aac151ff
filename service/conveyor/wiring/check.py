"""`conveyor check`: a package through everything that loading it would do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from conveyor.domain import ModelKey
from conveyor.errors import PackageError, Problem
from conveyor.gateway.catalogue import Entry
from conveyor.settings import ServeSettings
from conveyor.wiring.core import build_core
from conveyor.wiring.engines import engine_lost

__all__ = ["check"]


async def check(settings: ServeSettings, directory: Path) -> Sequence[Problem]:
    """The problems of the package in `…/<name>/<version>`, an absolute path; none if it would be served."""
    core = build_core(settings, engine_lost)
    try:
        key = ModelKey(directory.parent.name, directory.name)
        await core.loader.verify(key, directory, Entry(key))
    except PackageError as error:
        return error.problems
    finally:
        await core.engine.drain()
    return ()
