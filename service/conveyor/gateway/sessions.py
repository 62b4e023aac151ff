"""The use cases of streaming sessions: open, append, fork, tell, export, import, close; for every door alike."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import numpy as np

from conveyor.domain import SessionAdvance, SessionEnd, SessionInfo
from conveyor.errors import DeadlineExceeded, InvalidArgument
from conveyor.features.time import check_span
from conveyor.gateway.advancing import Advances, Advancing
from conveyor.gateway.call import Call
from conveyor.gateway.catalogue import Catalogue
from conveyor.gateway.checks import check_frequency, check_observations
from conveyor.gateway.codecs import ForecastCodec
from conveyor.gateway.limits import Limits
from conveyor.gateway.observations import Appends, Observations
from conveyor.gateway.reception import Reception
from conveyor.gateway.session_id import SessionId
from conveyor.gateway.session_rows import SessionRows, SessionRowsDispatcher
from conveyor.wire.sessions import NO_EXPECTATION, SessionCall, SessionState

__all__ = ["Sessions"]

_NOTHING = Observations(np.empty(0), None)


class Sessions:
    """What the server does with sessions. Event loop only; as the methods of `Gateway`, every one may raise any
    request error, and `NotFound` for a session that does not exist."""

    def __init__(
        self, catalogue: Catalogue, dispatcher: SessionRowsDispatcher, reception: Reception, limits: Limits
    ) -> None:
        self._catalogue = catalogue
        self._dispatcher = dispatcher
        self._reception = reception
        self._limits = limits
        self._advancing = Advancing(catalogue, dispatcher, reception, limits)

    async def open(
        self,
        call: Call,
        model: str,
        history: Observations | None = None,
        start: datetime | None = None,
        frequency: str | None = None,
    ) -> SessionInfo:
        """Opens a session of the highest version that serves, from a history of any length or none.

        Args:
            start: Time of the first step, of the history or to come.
        """
        with self._reception.counting(call):
            self._reception.check_open()
            key, codec = self._catalogue.resolve_streamable(model)
        call.model, call.version = key.name, key.version
        spec = codec.spec
        steps = (history or _NOTHING).steps(len(spec.series.features), "values")
        check_observations(steps, spec, "values", self._limits)
        check_frequency(frequency, spec, "frequency")
        if start is not None:
            check_span(start, spec.series.frequency, len(steps) + spec.horizon - 1, field="start")
        session = SessionId.new(key)
        rows = SessionRows(
            session.key, [NO_EXPECTATION], [len(steps)], steps, False, True, start.isoformat() if start else ""
        )
        with self._reception.accept(call, key, 1, steps.size):
            outcomes = await self._dispatcher.run(call, key, rows)
        if outcomes.failures:
            raise outcomes.failures[0]
        return _info(session, int(outcomes.steps[0]), float(outcomes.expires_in_s[0]))

    async def append(
        self,
        call: Call,
        session: str,
        observations: Observations,
        horizon: int | None = None,
        quantiles: Sequence[float] | None = None,
        expected_steps: int | None = None,
    ) -> SessionAdvance:
        """Advances a session by observations, and forecasts from there if a horizon is given.

        Raises:
            Aborted: The session has other than the expected steps; nothing was applied.
        """
        return await self._advancing.append(call, session, observations, horizon, quantiles, expected_steps)

    async def append_many(
        self, call: Call, appends: Appends, horizon: int | None = None, quantiles: Sequence[float] | None = None
    ) -> Advances:
        """Advances many sessions; each item succeeds or fails by itself."""
        return await self._advancing.append_many(call, appends, horizon, quantiles)

    async def fork(self, call: Call, session: str) -> SessionInfo:
        """Makes a second session from the same state; the first stays as it is."""
        origin, _ = self._find(call, session)
        branch = origin.beside()
        state = await self._ask(call, origin, "fork", other=branch.key)
        return _info(branch, state.steps, state.expires_in_s)

    async def tell(self, call: Call, session: str) -> SessionInfo:
        """How a session stands."""
        found, _ = self._find(call, session)
        state = await self._ask(call, found, "tell")
        return _info(found, state.steps, state.expires_in_s)

    async def export_state(self, call: Call, session: str) -> bytes:
        """The state of a session, signed; `import_state` takes it, here or on another server."""
        found, _ = self._find(call, session)
        return (await self._ask(call, found, "export")).blob

    async def import_state(self, call: Call, session: str, blob: bytes) -> SessionInfo:
        """Puts a state in place of a session's, or makes that session of it where there is none.

        Raises:
            InvalidArgument: The state was altered, is of another package or of an unknown format.
        """
        if not blob:
            raise InvalidArgument("the body is empty; the state of a session is accepted, as it was exported")
        found, _ = self._find(call, session)
        state = await self._ask(call, found, "import", blob=blob)
        return _info(found, state.steps, state.expires_in_s)

    async def close(self, call: Call, session: str) -> SessionEnd:
        """Ends a session, after everything that was appended before."""
        found, _ = self._find(call, session)
        state = await self._ask(call, found, "close")
        return SessionEnd(session, state.steps)

    def _find(self, call: Call, session: str) -> tuple[SessionId, ForecastCodec]:
        with self._reception.counting(call):
            self._reception.check_open()
            found = SessionId.parse(session)
            codec = self._catalogue.resolve_session(found.model)
        call.model, call.version = found.model.name, found.model.version
        return found, codec

    async def _ask(
        self,
        call: Call,
        session: SessionId,
        verb: Literal["tell", "fork", "export", "import", "close"],
        *,
        other: bytes = b"",
        blob: bytes = b"",
    ) -> SessionState:
        question = SessionCall(verb, session.model, session.key, other, blob)
        with self._reception.accept(call, session.model, 1, 0):
            try:
                async with asyncio.timeout(max(call.deadline - time.monotonic(), 0.0)):
                    return await self._dispatcher.ask(question)
            except TimeoutError as error:
                raise DeadlineExceeded("the deadline passed before the answer was ready") from error


def _info(session: SessionId, steps: int, expires_in_s: float) -> SessionInfo:
    return SessionInfo(str(session), session.model.name, session.model.version, steps, expires_in_s)
