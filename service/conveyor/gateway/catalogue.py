"""Which models there are, which of them serve, and which answers when a caller names none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import TypeVar

from conveyor.domain import ModelKey
from conveyor.errors import InvalidArgument, NotFound, Unavailable
from conveyor.gateway.codecs import Codec, ForecastCodec
from conveyor.gateway.session_id import no_such_session
from conveyor.spec import ForecastSpec, PackageSpec, Task
from conveyor.wire.port import CostReport, PlanReport

__all__ = ["Catalogue", "Entry", "ModelDescription", "State"]

_LONGEST_SHOWN = 64

CodecT = TypeVar("CodecT", bound=Codec)


class State(StrEnum):
    """LOADING: being put on the device or replaying its samples. READY: serves. FAILED: refused, see the reason."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


@dataclass(slots=True)
class Entry:
    """One version of one model. `spec` and `codec` are known once its package could be read."""

    key: ModelKey
    state: State = State.LOADING
    reason: str | None = None
    spec: PackageSpec | None = None
    codec: Codec | None = None


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """A model as `/v1/models` shows it; None is left out."""

    name: str
    task: str | None
    version: str
    versions: Sequence[str]
    state: str
    default: bool
    description: str | None = None
    reason: str | None = None
    labels: Sequence[str] | None = None
    features: Sequence[str] | None = None
    targets: Sequence[str] | None = None
    frequency: str | None = None
    history: int | None = None
    max_horizon: int | None = None
    streamable: bool | None = None
    plan: Mapping[str, str] | None = None
    costs: CostReport | None = None


@dataclass(slots=True)
class Catalogue:
    """The models of this server. Used from the event loop only.

    defaults: the model of each task that answers when a request names none.
    plans, costs: how each model is executed and what it costs by the engine's latest word, for the description.
    """

    defaults: Mapping[Task, str]
    plans: Mapping[ModelKey, PlanReport] = field(default_factory=dict)
    costs: Mapping[ModelKey, CostReport] = field(default_factory=dict)
    _entries: dict[ModelKey, Entry] = field(default_factory=dict)
    # The versions of each model, ascending.
    _by_name: dict[str, Sequence[Entry]] = field(default_factory=dict)

    def put(self, entry: Entry) -> None:
        """Adds or replaces a version."""
        self._entries[entry.key] = entry
        found = [other for other in self._entries.values() if other.key.name == entry.key.name]
        self._by_name[entry.key.name] = sorted(found, key=lambda other: int(other.key.version))

    def entries(self) -> Sequence[Entry]:
        """All versions, by name, then by ascending version."""
        return sorted(self._entries.values(), key=lambda entry: (entry.key.name, int(entry.key.version)))

    def resolve(
        self, task: Task, codec_type: type[CodecT], name: str | None, version: str | None
    ) -> tuple[ModelKey, CodecT]:
        """Finds the version that answers: the highest that serves, unless one is named.

        Raises:
            NotFound: No such model or version serves here.
            InvalidArgument: The model is of another task.
            Unavailable: It is still loading.
        """
        entry = self._serving_entry(self.defaults[task] if name is None else name, version)
        if not isinstance(entry.codec, codec_type):
            raise InvalidArgument(f"model {entry.key.name!r} is for {_task(entry)}, not for {task}", field="model")
        return entry.key, entry.codec

    def resolve_streamable(self, name: str) -> tuple[ModelKey, ForecastCodec]:
        """Finds the highest version that serves of a model that a session can be opened on.

        Raises:
            NotFound, Unavailable: As `resolve`.
            InvalidArgument: Its steps can't be taken one by one; says why.
        """
        entry = self._serving_entry(name, None)
        if not isinstance(entry.codec, ForecastCodec) or not _is_streamable(entry.codec.spec):
            raise InvalidArgument(
                f"a session needs a streamable model, and {name} is not: {_why_not_streamable(entry.spec)}",
                field="model",
            )
        return entry.key, entry.codec

    def resolve_session(self, key: ModelKey) -> ForecastCodec:
        """Finds the codec of the version that a session was opened on.

        Raises:
            NotFound: No session can be of it; said as of any session that does not exist.
            Unavailable: It is still loading.
        """
        entry = self._entries.get(key)
        if entry is not None and entry.state is State.LOADING:
            raise _still_loading(entry)
        if entry is None or entry.state is State.FAILED or not isinstance(entry.codec, ForecastCodec):
            raise no_such_session()
        return entry.codec

    def _serving_entry(self, name: str, version: str | None) -> Entry:
        entry = self.find(name, version)
        if entry.state is State.LOADING:
            raise _still_loading(entry)
        if entry.state is State.FAILED:
            raise NotFound(
                f"model {entry.key.name!r} version {entry.key.version} was refused at load; /v1/models says why"
            )
        return entry

    def find(self, name: str, version: str | None) -> Entry:
        """A version of a model in whatever state: the named one, or the highest that serves, or else may serve.

        Raises:
            NotFound: There is no such model or version.
        """
        versions = self._by_name.get(name)
        if not versions:
            known = ", ".join(sorted(self._by_name))
            raise NotFound(f"there is no model {_shown(name)} here; there are: {known or 'none'}")
        if version is None:
            return _serving(versions)
        for entry in versions:
            if entry.key.version == version:
                return entry
        known = ", ".join(entry.key.version for entry in versions)
        raise NotFound(f"model {name!r} has no version {_shown(version)}; there are: {known}")

    def describe(self) -> Sequence[ModelDescription]:
        """Every model, by name."""
        return [self.describe_one(name) for name in sorted(self._by_name)]

    def describe_one(self, name: str) -> ModelDescription:
        """One model by its serving version.

        Raises:
            NotFound: There is no such model.
        """
        entry = self.find(name, None)
        ready = [e.key.version for e in self._by_name[name] if e.state is State.READY]
        spec, plan = entry.spec, self.plans.get(entry.key)
        common = ModelDescription(
            name=name,
            task=spec.task if spec else None,
            version=entry.key.version,
            versions=ready,
            state=entry.state.value,
            default=name in self.defaults.values(),
            description=spec.description if spec else None,
            reason=entry.reason,
            plan=asdict(plan) if plan else None,
            costs=self.costs.get(entry.key),
        )
        return _with_details(common, spec)


def _shown(name: str) -> str:
    """A name as a caller sent it, cut to what a name can be."""
    return repr(name if len(name) <= _LONGEST_SHOWN else name[:_LONGEST_SHOWN] + "…")


def _serving(versions: Sequence[Entry]) -> Entry:
    """The highest version that serves; if none does, the highest that may yet, else the highest."""
    for state in (State.READY, State.LOADING):
        for entry in reversed(versions):
            if entry.state is state:
                return entry
    return versions[-1]


def _still_loading(entry: Entry) -> Unavailable:
    return Unavailable(f"model {entry.key.name!r} version {entry.key.version} is still loading", retry_after_s=1.0)


def _is_streamable(spec: PackageSpec) -> bool:
    return isinstance(spec, ForecastSpec) and spec.streamable


def _why_not_streamable(spec: PackageSpec | None) -> str:
    if isinstance(spec, ForecastSpec):
        return "its package says so"
    if spec is not None and spec.recurrent.bidirectional:
        return "it reads backwards too, from an end that a stream does not have"
    return "a session forecasts"


def _task(entry: Entry) -> Task | None:
    return entry.spec.task if entry.spec else None


def _with_details(common: ModelDescription, spec: PackageSpec | None) -> ModelDescription:
    if spec is None:
        return common
    if isinstance(spec, ForecastSpec):
        return replace(
            common,
            features=spec.series.features,
            targets=spec.series.targets,
            frequency=spec.series.frequency,
            history=spec.history,
            max_horizon=spec.horizon,
            streamable=_is_streamable(spec),
        )
    return replace(common, labels=spec.labels, streamable=_is_streamable(spec))
