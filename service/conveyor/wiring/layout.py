"""How many processes of each kind the server has."""

from __future__ import annotations

from dataclasses import dataclass

from conveyor.settings import ServeSettings

__all__ = ["Layout"]

# A short text costs a front end about what it costs an engine, and over gRPC four times as much; with long texts front
# ends have little to do and take no core from anybody.
_CORES_AN_ENGINE = 2
# Beyond these, the device or the network is what is short.
_MOST_BY_DEFAULT = 8


@dataclass(frozen=True, slots=True)
class Layout:
    """Processes beside the one that watches; without front ends there is one process that does all.

    http_front_ends: how many of the front ends speak HTTP, beside gRPC. Fewer doors find more requests waiting at each,
        and what is done for many at once costs less for each (docs/architecture.md has figures).
    """

    front_ends: int
    http_front_ends: int
    engines: int

    @classmethod
    def of(cls, settings: ServeSettings, cores: int, *, has_cuda: bool) -> Layout:
        """As told; else a front end for each core, and none of its own where there is only one; one engine for a CUDA
        device, and one for two cores where the cores are the device; HTTP in all front ends before a CUDA device, and
        in one for each engine where engines need the cores.

        Args:
            cores: That the server may use.
            has_cuda: Whether models run on a CUDA device.
        """
        front_ends = settings.frontends
        if front_ends is None:
            by_cores = min(cores, _MOST_BY_DEFAULT) if cores > 1 else 0
            front_ends = max(by_cores, settings.http_frontends or 0)
        engines = settings.engines
        if engines is None:
            engines = 1 if has_cuda else max(1, min(cores // _CORES_AN_ENGINE, _MOST_BY_DEFAULT))
        http_front_ends = settings.http_frontends
        if http_front_ends is None:
            http_front_ends = front_ends if has_cuda else min(front_ends, engines)
        return cls(front_ends, http_front_ends, engines)
