"""`conveyor serve`: from settings to an exit code."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path

from conveyor.settings import ServeSettings
from conveyor.telemetry.logs import configure
from conveyor.wiring.console import say, say_failure
from conveyor.wiring.state_directory import claim

__all__ = ["serve"]

# A short text costs a front end about what it costs an engine, and over gRPC four times as much; with long texts front
# ends have little to do and take no core from anybody. Fewer doors find more requests waiting at each, and what they do
# for many at once costs less for each. Beyond these, the device or the network is what is short.
_CORES_AN_ENGINE = 2
_MOST_BY_DEFAULT = 8

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
    front_ends = _front_ends(settings)
    if front_ends == 0:
        from conveyor.wiring.single import serve_single

        return serve_single(settings)
    from conveyor.wiring.processes.supervisor import supervise

    engines = _engines(settings)
    return supervise(settings, front_ends, _http_front_ends(settings, front_ends, engines), engines)


def _front_ends(settings: ServeSettings) -> int:
    """As told; else one for each core, and none of its own where there is only one core."""
    if settings.frontends is not None:
        return settings.frontends
    cores = _cores()
    return min(cores, _MOST_BY_DEFAULT) if cores > 1 else 0


def _engines(settings: ServeSettings) -> int:
    """As told; else one for a CUDA device, and one for two cores where the cores are the device."""
    if settings.engines is not None:
        return settings.engines
    if _is_cuda(settings):
        return 1
    return max(1, min(_cores() // _CORES_AN_ENGINE, _MOST_BY_DEFAULT))


def _http_front_ends(settings: ServeSettings, front_ends: int, engines: int) -> int:
    """As told; else all before a CUDA device, and one for each engine where engines need the cores."""
    if settings.http_frontends is not None:
        return min(settings.http_frontends, front_ends)
    return front_ends if _is_cuda(settings) else min(front_ends, engines)


def _is_cuda(settings: ServeSettings) -> bool:
    return settings.device.startswith("cuda") or (settings.device == "auto" and _CUDA_DRIVER.exists())


def _cores() -> int:
    return len(os.sched_getaffinity(0))
