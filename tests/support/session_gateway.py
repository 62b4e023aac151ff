"""An engine that keeps sessions as lists of what they were given, and a gateway before it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import numpy as np

from conveyor.domain import ModelKey
from conveyor.errors import Aborted, ConveyorError, InvalidArgument, NotFound
from conveyor.gateway.admission import Admission
from conveyor.gateway.answering import Answering
from conveyor.gateway.catalogue import Catalogue, Entry, State
from conveyor.gateway.codecs import ForecastCodec
from conveyor.gateway.dispatcher import Dispatcher
from conveyor.gateway.gateway import Gateway
from conveyor.gateway.limits import Limits
from conveyor.lifecycle.phase import Lifecycle
from conveyor.telemetry.metrics import Metrics
from conveyor.wire.messages import BatchReport, FailureBlock, RowBlock
from conveyor.wire.port import ReplySink
from conveyor.wire.sessions import NO_EXPECTATION, SessionBlock, SessionCall, SessionResults, SessionState
from support.packages import FORECAST

__all__ = ["MODEL", "RememberingEngine", "session_gateway", "until"]

MODEL = ModelKey("forecast-electricity", "1")
assert FORECAST.task == "forecast"

EXPIRES_IN_S = 3600.0


@dataclass
class RememberingEngine:
    """Answers at once, or holds blocks back; forecasts the last value, and the same less and more, at every step."""

    held: bool = False
    sessions: dict[bytes, list[float]] = field(default_factory=dict)
    starts: dict[bytes, str] = field(default_factory=dict)
    blocks: list[SessionBlock] = field(default_factory=list)
    cancelled: list[int] = field(default_factory=list)

    def connect(self, sink: ReplySink) -> None:
        """Sets where replies go."""
        self._sink = sink

    def submit(self, block: RowBlock | SessionBlock) -> None:
        """Applies the rows of a block."""
        assert isinstance(block, SessionBlock)
        self.blocks.append(block)
        if not self.held:
            self.answer(block)

    def cancel(self, ids: Collection[int]) -> None:
        """Notes them."""
        self.cancelled += ids

    async def session(self, call: SessionCall) -> SessionState:
        """Does what is asked."""
        values = self._values(call.session) if call.verb != "import" else []
        match call.verb:
            case "fork":
                self.sessions[call.other] = list(values)
                self.starts[call.other] = self.starts[call.session]
            case "export":
                return SessionState(len(values), EXPIRES_IN_S, np.array(values).tobytes())
            case "import":
                if len(call.blob) % 8:
                    raise InvalidArgument("the state was altered")
                values = self.sessions[call.session] = np.frombuffer(call.blob).tolist()
                self.starts.setdefault(call.session, "")
            case "close":
                del self.sessions[call.session]
        return SessionState(len(values), EXPIRES_IN_S)

    def answer(self, block: SessionBlock) -> None:
        """Applies a block that was held back."""
        ends = np.cumsum(block.lengths).tolist()
        done: list[int] = []
        after: list[tuple[int, float]] = []
        for row, end in enumerate(ends):
            key = block.sessions[row].tobytes()
            try:
                if block.opens[row]:
                    self.sessions[key], self.starts[key] = [], block.starts[row]
                values = self._values(key)
                if block.expected[row] not in (NO_EXPECTATION, len(values)):
                    raise Aborted(f"the session has {len(values)} steps")
                values += block.values[end - block.lengths[row] : end, 0].tolist()
                if block.forecasts[row] and not values:
                    raise InvalidArgument("every value so far is missing")
            except ConveyorError as error:
                self._sink(FailureBlock(block.model, [int(block.ids[row])], type(error).__name__, error.message))
            else:
                done.append(row)
                after.append((len(values), values[-1] if values else 0.0))
        self._sink(self._results(block, done, after))

    def _values(self, key: bytes) -> list[float]:
        if key not in self.sessions:
            raise NotFound("no such session")
        return self.sessions[key]

    def _results(self, block: SessionBlock, done: list[int], after: list[tuple[int, float]]) -> SessionResults:
        keys = [block.sessions[row].tobytes() for row in done]
        wanted = [index for index, row in enumerate(done) if block.forecasts[row]]
        outputs = np.zeros((len(wanted), FORECAST.horizon, 1, 4), dtype=np.float32)
        outputs[..., 1], outputs[..., 3] = -1.0, 1.0
        last = np.array([after[index][1] for index in wanted]).reshape(-1, 1)
        # In an order that is not that in which they came: an engine may do so.
        order = np.arange(len(done))[::-1]
        return SessionResults(
            model=block.model,
            ids=block.ids[done][order],
            steps=np.array([steps for steps, _ in after], dtype=np.int64)[order],
            expires_in_s=np.full(len(done), EXPIRES_IN_S),
            forecast_rows=np.array([len(done) - 1 - index for index in wanted[::-1]], dtype=np.int32),
            forecasts=outputs[::-1],
            loc=last[::-1],
            scale=np.ones_like(last),
            starts=[self.starts[keys[index]] for index in wanted[::-1]],
            report=BatchReport(block.model, np.zeros(len(done)), 0.0, len(done), False, len(block.values), 0),
        )


def session_gateway(
    engine: RememberingEngine, lifecycle: Lifecycle, metrics: Metrics, limits: Limits, *, queue_rows: int = 8192
) -> Gateway:
    """A gateway whose one model forecasts."""
    catalogue = Catalogue({"sentiment": "none", "tag": "none", "forecast": MODEL.name})
    catalogue.put(Entry(MODEL, State.READY, None, FORECAST, ForecastCodec(FORECAST)))
    admission = Admission(queue_rows, 2**20, 64)
    dispatcher = Dispatcher(engine, lambda _: None)  # type: ignore[arg-type]
    answering = Answering(dispatcher, admission)
    return Gateway(catalogue, answering, dispatcher.sessions, admission, lifecycle, metrics, limits)


async def until(condition: Callable[[], object]) -> None:
    """Returns once a condition holds."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  nothing announces it
            await asyncio.sleep(0.005)
