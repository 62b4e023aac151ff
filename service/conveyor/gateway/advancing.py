"""Appends to sessions, one or a thousand in a call: checked, dispatched and decoded as columns."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from conveyor.domain import Forecast, ModelKey, SessionAdvance
from conveyor.errors import ConveyorError, InvalidArgument
from conveyor.features.series import MAX_MAGNITUDE
from conveyor.features.time import parse_start, timestamps
from conveyor.gateway.call import Call
from conveyor.gateway.catalogue import Catalogue
from conveyor.gateway.checks import check_horizon, check_levels, check_observations
from conveyor.gateway.codecs import ForecastCodec
from conveyor.gateway.limits import Limits
from conveyor.gateway.observations import Appends, Observations
from conveyor.gateway.reception import Reception
from conveyor.gateway.session_id import SessionId, split_ids
from conveyor.gateway.session_rows import ForecastRows, Outcomes, SessionRows, SessionRowsDispatcher
from conveyor.wire.sessions import KEY_BYTES, NO_EXPECTATION

__all__ = ["Advances", "Advancing"]

_MOST_STEPS = 2**62

# Numbers of forecasts that take about a millisecond to decode; more leave the event loop.
_INLINE_NUMBERS = 16_384


@dataclass(frozen=True, slots=True, eq=False)
class Advances:
    """What became of many appends, in their order.

    steps, expires_in_s: of each session after its item; 0 for items that failed.
    results: by item; none without a horizon.
    failures: by item.
    """

    sessions: Sequence[str]
    steps: npt.NDArray[np.int64]
    expires_in_s: npt.NDArray[np.float64]
    results: dict[int, Forecast]
    failures: dict[int, ConveyorError]


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The forecast that a call wants of a model: steps and quantile levels."""

    horizon: int
    levels: Sequence[float]


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """The items of a call that are for one model. items: their places in the call. keys: of their sessions, joined."""

    model: ModelKey
    codec: ForecastCodec
    items: Sequence[int]
    keys: bytes


class Advancing:
    """Advances sessions. Event loop only; may raise any request error."""

    def __init__(
        self, catalogue: Catalogue, dispatcher: SessionRowsDispatcher, reception: Reception, limits: Limits
    ) -> None:
        self._catalogue = catalogue
        self._dispatcher = dispatcher
        self._reception = reception
        self._limits = limits

    async def append(
        self,
        call: Call,
        session: str,
        observations: Observations,
        horizon: int | None,
        quantiles: Sequence[float] | None,
        expected_steps: int | None,
    ) -> SessionAdvance:
        """Advances one session."""
        with self._reception.counting(call):
            self._reception.check_open()
            found = SessionId.parse(session)
            codec = self._catalogue.resolve_session(found.model)
        call.model, call.version = found.model.name, found.model.version
        wanted = self._wanted(codec, horizon, quantiles)
        expected = _expected(expected_steps, "expected_steps")
        steps = observations.steps(len(codec.spec.series.features), "values")
        check_observations(steps, codec.spec, "values", self._limits)
        rows = SessionRows(found.key, [expected], [len(steps)], steps, wanted is not None)
        with self._reception.accept(call, found.model, 1, steps.size):
            outcomes = await self._dispatcher.run(call, found.model, rows)
            if outcomes.failures:
                raise outcomes.failures[0]
            results = await _decoded(codec, outcomes, wanted)
        return SessionAdvance(session, int(outcomes.steps[0]), float(outcomes.expires_in_s[0]), results.get(0))

    async def append_many(
        self, call: Call, appends: Appends, horizon: int | None, quantiles: Sequence[float] | None
    ) -> Advances:
        """Advances many sessions; what is wrong with an item stands in its place, with the call is raised."""
        if not len(appends):
            raise InvalidArgument("items must not be empty", field="items")
        if len(appends) > self._limits.items:
            raise InvalidArgument(
                f"items has {len(appends)} items; at most {self._limits.items} are accepted", field="items"
            )
        with self._reception.counting(call):
            self._reception.check_open()
        count = len(appends)
        advances = Advances(appends.sessions, np.zeros(count, np.int64), np.zeros(count), {}, dict(appends.faults))
        groups = self._grouped(appends, advances.failures)
        if len(groups) == 1:
            (group,) = groups
            call.model, call.version = group.model.name, group.model.version
            await self._advance(call, group, appends, horizon, quantiles, advances)
            return advances

        async def advance(group: _Group) -> None:
            try:
                await self._advance(call, group, appends, horizon, quantiles, advances)
            except ConveyorError as error:
                advances.failures.update(dict.fromkeys(group.items, error))

        await asyncio.gather(*map(advance, groups))
        return advances

    async def _advance(
        self,
        call: Call,
        group: _Group,
        appends: Appends,
        horizon: int | None,
        quantiles: Sequence[float] | None,
        advances: Advances,
    ) -> None:
        """Advances the sessions of one model, and writes what became of them into `advances`."""
        wanted = self._wanted(group.codec, horizon, quantiles)
        items, rows = self._rows(group, appends, wanted is not None, advances.failures)
        if not items:
            return
        with self._reception.accept(call, group.model, len(items), rows.values.size):
            outcomes = await self._dispatcher.run(call, group.model, rows)
            results = await _decoded(group.codec, outcomes, wanted)
        advances.steps[items] = outcomes.steps
        advances.expires_in_s[items] = outcomes.expires_in_s
        advances.results.update({items[row]: result for row, result in results.items()})
        advances.failures.update({items[row]: error for row, error in outcomes.failures.items()})

    def _grouped(self, appends: Appends, failures: dict[int, ConveyorError]) -> list[_Group]:
        """The items by model; those whose session can't be anybody's are entered as failures."""
        split = None if failures else split_ids(appends.sessions)
        if split is not None and len(set(split[0])) == 1:
            # Every item is for one model, as nearly always.
            try:
                found = SessionId.parse(appends.sessions[0])
                codec = self._catalogue.resolve_session(found.model)
            except ConveyorError as error:
                failures.update(dict.fromkeys(range(len(appends)), error))
                return []
            return [_Group(found.model, codec, range(len(appends)), split[1])]
        members: dict[ModelKey, tuple[ForecastCodec, list[int], list[bytes]]] = {}
        for item, text in enumerate(appends.sessions):
            if item in failures:
                continue
            try:
                found = SessionId.parse(text)
                if found.model not in members:
                    members[found.model] = self._catalogue.resolve_session(found.model), [], []
            except ConveyorError as error:
                failures[item] = error
                continue
            _, items, keys = members[found.model]
            items.append(item)
            keys.append(found.key)
        return [_Group(model, codec, items, b"".join(keys)) for model, (codec, items, keys) in members.items()]

    def _rows(
        self, group: _Group, appends: Appends, forecast: bool, failures: dict[int, ConveyorError]
    ) -> tuple[Sequence[int], SessionRows]:
        """The items that are in order, and their rows; the others are entered as failures."""
        features = len(group.codec.spec.series.features)
        if len(group.items) == len(appends) and self._are_plain(appends, features):
            lengths = appends.sizes if features == 1 else [size // features for size in appends.sizes]
            expected = [NO_EXPECTATION if steps is None else steps for steps in appends.expected]
            values = appends.values.reshape(-1, features)
            return group.items, SessionRows(group.keys, expected, lengths, values, forecast)
        ends = np.cumsum(appends.sizes).tolist()
        items, keys, expectations, pieces = [], [], [], [np.empty((0, features))]
        for index, item in enumerate(group.items):
            values = appends.values[ends[item] - appends.sizes[item] : ends[item]]
            name = f"items[{item}].values"
            try:
                expectation = _expected(appends.expected[item], f"items[{item}].expected_steps")
                steps = Observations(values, appends.width_of(item)).steps(features, name)
                check_observations(steps, group.codec.spec, name, self._limits)
            except ConveyorError as error:
                failures[item] = error
                continue
            items.append(item)
            keys.append(group.keys[KEY_BYTES * index : KEY_BYTES * (index + 1)])
            expectations.append(expectation)
            pieces.append(steps)
        lengths = [len(piece) for piece in pieces[1:]]
        return items, SessionRows(b"".join(keys), expectations, lengths, np.concatenate(pieces), forecast)

    def _are_plain(self, appends: Appends, features: int) -> bool:
        """Whether no item has anything wrong, told without looking at each of them."""
        widths = set(appends.widths) if isinstance(appends.widths, Sequence) else {appends.widths}
        expected = [steps for steps in set(appends.expected) if steps is not None]
        return (
            widths <= {None, features}
            and (features == 1 or not any(size % features for size in appends.sizes))
            and max(appends.sizes) <= self._limits.series_values
            and not (np.abs(appends.values) > MAX_MAGNITUDE).any()
            and (not expected or (min(expected) >= 0 and max(expected) <= _MOST_STEPS))
        )

    def _wanted(self, codec: ForecastCodec, horizon: int | None, quantiles: Sequence[float] | None) -> _Wanted | None:
        # Also without a horizon: an append that is wrong must not be applied.
        levels = check_levels(quantiles, codec.spec, self._limits)
        return None if horizon is None else _Wanted(check_horizon(horizon, codec.spec), levels)


def _expected(steps: int | None, field: str) -> int:
    if steps is None:
        return NO_EXPECTATION
    if not 0 <= steps <= _MOST_STEPS:
        raise InvalidArgument("expected_steps must be a number of steps, 0 or more", field=field)
    return steps


async def _decoded(codec: ForecastCodec, outcomes: Outcomes, wanted: _Wanted | None) -> dict[int, Forecast]:
    """The forecasts by row."""
    if wanted is None:
        return {}
    numbers = len(outcomes.steps) * wanted.horizon * len(codec.spec.series.targets) * (1 + len(wanted.levels))

    def decode() -> dict[int, Forecast]:
        results: dict[int, Forecast] = {}
        for part in outcomes.forecasts:
            forecasts = codec.restore(
                part.outputs[:, : wanted.horizon],
                part.loc,
                part.scale,
                _times(part, codec.spec.series.frequency, wanted.horizon),
                wanted.levels,
            )
            results.update(zip(part.rows.tolist(), forecasts, strict=True))
        return results

    return decode() if numbers <= _INLINE_NUMBERS else await asyncio.to_thread(decode)


def _times(part: ForecastRows, frequency: str, horizon: int) -> list[Sequence[str] | None]:
    """When the steps of each forecast are; meters that began together share the text."""
    known: dict[tuple[str, int], Sequence[str] | None] = {}
    times = []
    for place in zip(part.starts, part.steps.tolist(), strict=True):
        if place not in known:
            known[place] = _times_of(*place, frequency, horizon)
        times.append(known[place])
    return times


def _times_of(start: str, steps: int, frequency: str, horizon: int) -> Sequence[str] | None:
    if not start:
        return None
    try:
        return timestamps(parse_start(start), frequency, steps, horizon)
    except InvalidArgument:
        # Beyond the year 9999, which a session may reach by many appends: the forecast stands without its times.
        return None
