"""Sessions as messages. What proto3 can't tell from "not given" is not given."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import chain

import numpy as np

from conveyor.api.rpc.messages import forecast_result
from conveyor.api.rpc.proto.conveyor.v1 import conveyor_pb2 as pb
from conveyor.api.shown import clamp
from conveyor.domain import SessionAdvance, SessionEnd, SessionInfo
from conveyor.errors import ConveyorError, InvalidArgument
from conveyor.features.time import parse_start
from conveyor.gateway.advancing import Advances
from conveyor.gateway.observations import Appends, Observations

__all__ = [
    "advances_response",
    "appended",
    "appends_from",
    "closed",
    "error_response",
    "observations_from",
    "opened",
    "start_from",
]


def observations_from(message: pb.OpenSession | pb.AppendSession) -> Observations:
    """What a message holds to be taken in.

    Raises:
        InvalidArgument: `features` is negative.
    """
    return Observations(np.array(message.values, dtype=np.float64), _width(message.features, "features"))


def start_from(message: pb.OpenSession) -> datetime | None:
    """The time of the first step.

    Raises:
        InvalidArgument: It is not ISO-8601.
    """
    return parse_start(message.start, field="start") if message.start else None


def appends_from(items: Sequence[pb.AppendItem] | Sequence[pb.AppendSession]) -> Appends:
    """The columns of appends to many sessions."""
    values = [item.values for item in items]
    faults: dict[int, InvalidArgument] = {}
    features = [item.features for item in items]
    widths: list[int | None] | None = None
    if any(features):
        widths = []
        for index, width in enumerate(features):
            try:
                widths.append(_width(width, f"items[{index}].features"))
            except InvalidArgument as error:
                faults[index] = error
                widths.append(None)
    return Appends(
        sessions=[item.session for item in items],
        values=np.fromiter(chain.from_iterable(values), dtype=np.float64),
        sizes=list(map(len, values)),
        widths=widths,
        expected=[item.expected_steps if item.HasField("expected_steps") else None for item in items],
        faults=faults,
    )


def advances_response(advances: Advances) -> pb.AppendSessionsResponse:
    """What became of many appends; the failures are as they may be shown."""
    sessions, steps = advances.sessions, advances.steps.tolist()
    items = []
    for index, session in enumerate(sessions):
        failure = advances.failures.get(index)
        result = advances.results.get(index)
        if failure is not None:
            item = pb.AppendedItem(session=session, error=clamp(failure.message), code=failure.code)
        elif result is not None:
            item = pb.AppendedItem(session=session, steps=steps[index], result=forecast_result(result))
        else:
            item = pb.AppendedItem(session=session, steps=steps[index])
        items.append(item)
    return pb.AppendSessionsResponse(items=items)


def opened(message_id: str, info: SessionInfo) -> pb.SessionResponse:
    """A session that was opened or forked."""
    return pb.SessionResponse(
        id=message_id,
        opened=pb.SessionOpened(
            session=info.session,
            model=info.model,
            version=info.version,
            steps=info.steps,
            expires_in=info.expires_in,
        ),
    )


def appended(message_id: str, advance: SessionAdvance) -> pb.SessionResponse:
    """A session that was advanced."""
    result = None if advance.result is None else forecast_result(advance.result)
    return pb.SessionResponse(
        id=message_id,
        appended=pb.SessionAppended(
            session=advance.session, steps=advance.steps, expires_in=advance.expires_in, result=result
        ),
    )


def closed(message_id: str, end: SessionEnd) -> pb.SessionResponse:
    """A session that was closed."""
    return pb.SessionResponse(id=message_id, closed=pb.SessionClosed(session=end.session, steps=end.steps))


def error_response(message_id: str, error: ConveyorError, field: str | None = None) -> pb.SessionResponse:
    """A message that was refused.

    Args:
        error: As it may be shown.
        field: Instead of the error's own.
    """
    return pb.SessionResponse(
        id=message_id,
        error=pb.SessionError(
            error=clamp(error.message), code=error.code, field=clamp(field if field is not None else error.field or "")
        ),
    )


def _width(features: int, field: str) -> int | None:
    if features < 0:
        raise InvalidArgument(f"features must be positive, or left out; got {features}", field=field)
    return features or None
