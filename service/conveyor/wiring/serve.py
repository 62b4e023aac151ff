"""`conveyor serve`: from settings to an exit code."""

from __future__ import annotations

import os
import resource
from importlib.metadata import version
from pathlib import Path

from conveyor.settings import ServeSettings
from conveyor.telemetry.logs import configure
from conveyor.wiring.console import say, say_failure
from conveyor.wiring.layout import Layout
from conveyor.wiring.state_directory import claim

__all__ = ["serve"]

_CUDA_DRIVER = Path("/dev/nvidiactl")


def serve(settings: ServeSettings) -> int:
    """Runs the server until SIGTERM or SIGINT.

    Returns:
        0 after an ordered stop; 1 if it could not start, no model could be loaded, or it could not go on.
    """
    configure(settings.log_level)
    say(f"conveyor {version('conveyor')}")
    try:
        claimed = claim(settings.state_dir)
    except OSError as error:
        return say_failure(f"cannot use the state directory {settings.state_dir}: {error.strerror or error}")
    with claimed:
        return _serve(settings)


def _serve(settings: ServeSettings) -> int:
    _take_descriptors()
    layout = Layout.of(settings, len(os.sched_getaffinity(0)), has_cuda=_has_cuda(settings))
    if layout.front_ends == 0:
        from conveyor.wiring.single import serve_single

        return serve_single(settings)
    from conveyor.wiring.processes.supervisor import supervise

    return supervise(settings, layout)


def _take_descriptors() -> None:
    """Takes as many descriptors as this process and those that it starts may have: each connection needs one, and by
    default most systems give 1 024 to whoever does not ask."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _has_cuda(settings: ServeSettings) -> bool:
    return settings.device.startswith("cuda") or (settings.device == "auto" and _CUDA_DRIVER.exists())
