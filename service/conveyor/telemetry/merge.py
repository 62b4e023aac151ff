"""The metrics of several processes as one: each sends what it counted, and one page shows their sum.

prometheus_client can share files between processes instead, but then knows neither gauges that are not one process's
own nor collectors of other libraries.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

__all__ = ["Family", "lasting", "merged", "render", "snapshot"]

# What each process has of its own; of any other gauge every process says the same, or says nothing.
_SUMMED_GAUGES = frozenset(
    {
        *("process_resident_memory_bytes", "process_virtual_memory_bytes", "process_open_fds"),
        *("conveyor_sessions_live", "conveyor_session_state_bytes"),
    }
)


@dataclass(frozen=True, slots=True)
class Family:
    """A metric as a process has it. samples: (name, labels, value), as in the text format."""

    name: str
    documentation: str
    kind: str
    samples: Sequence[tuple[str, Mapping[str, str], float]]


def snapshot(registry: CollectorRegistry) -> list[Family]:
    """Everything a registry holds."""
    return [
        Family(
            metric.name,
            metric.documentation,
            metric.type,
            [(sample.name, sample.labels, sample.value) for sample in metric.samples],
        )
        for metric in registry.collect()
    ]


def lasting(families: Iterable[Family]) -> list[Family]:
    """What stays true of a process that has ended: what it counted, and not how it stood."""
    return [family for family in families if family.kind != "gauge"]


def merged(snapshots: Iterable[Sequence[Family]]) -> list[Family]:
    """Several snapshots as one; counters and histograms are summed."""
    found: dict[str, tuple[Family, dict[tuple[str, tuple[tuple[str, str], ...]], float]]] = {}
    for families in snapshots:
        for family in families:
            _, values = found.setdefault(family.name, (family, {}))
            largest = family.kind == "gauge" and family.name not in _SUMMED_GAUGES
            for name, labels, value in family.samples:
                key = name, tuple(labels.items())
                before = values.get(key)
                if before is None:
                    values[key] = value
                else:
                    values[key] = max(before, value) if largest else before + value
    return [
        replace(family, samples=[(name, dict(labels), value) for (name, labels), value in values.items()])
        for family, values in found.values()
    ]


def render(families: Iterable[Family]) -> bytes:
    """A page of the Prometheus text format."""
    registry = CollectorRegistry()
    registry.register(_Page(families))
    return generate_latest(registry)


class _Page(Collector):
    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        for family in self._families:
            metric = Metric(family.name, family.documentation, family.kind)
            for name, labels, value in family.samples:
                metric.add_sample(name, dict(labels), value)
            yield metric
