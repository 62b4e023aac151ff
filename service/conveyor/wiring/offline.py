"""One model without doors, for commands that end with their work."""

from __future__ import annotations

from conveyor.errors import PackageError, Problem
from conveyor.gateway.catalogue import State
from conveyor.lifecycle.phase import Phase
from conveyor.settings import ServeSettings
from conveyor.spec import PackageSpec
from conveyor.wiring.core import Core

__all__ = ["OFFLINE_TIMEOUT_S", "load_model"]

# Nobody waits for an item but the command itself: the bound only ends what would never end.
OFFLINE_TIMEOUT_S = 24 * 3600.0


async def load_model(core: Core, settings: ServeSettings, model: str, version: str | None) -> PackageSpec:
    """Loads one model and opens the gateway for it.

    Raises:
        NotFound: There is no such model or version.
        PackageError: Its package is refused.
    """
    await core.start()
    await core.load_models(settings.models, only=model)
    core.lifecycle.set(Phase.READY)
    entry = core.catalogue.find(model, version)
    if entry.state is State.FAILED or entry.spec is None:
        raise PackageError([Problem(f"{model}/{entry.key.version}", "", entry.reason or "was refused")])
    return entry.spec
