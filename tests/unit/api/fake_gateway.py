"""A gateway that answers with what it was asked, or does what a text tells it to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Generator, Sequence
from dataclasses import dataclass, field
from typing import Concatenate, Generic, ParamSpec, TypeVar

from conveyor.domain import Answer, Forecast, Sentiment, Series, Span, Tagging, Token
from conveyor.errors import ConveyorError, DeadlineExceeded, InvalidArgument, NotFound
from conveyor.gateway.call import Call
from conveyor.gateway.catalogue import ModelDescription
from conveyor.gateway.sessions import Sessions

ResultT = TypeVar("ResultT")
P = ParamSpec("P")

SCORE = 0.1 + 0.2  # 0.30000000000000004: seen to arrive unrounded


class FakeQuestion(Generic[ResultT]):
    """What a gateway gives, answered by a coroutine."""

    def __init__(self, answering: Coroutine[object, object, Answer[ResultT]], *, is_small: bool) -> None:
        self._answering = answering
        self._is_small = is_small

    def __await__(self) -> Generator[object, None, Answer[ResultT]]:
        return self._answering.__await__()

    @staticmethod
    def encode_together(questions: Sequence[FakeQuestion[ResultT]]) -> None:
        """Nothing is to be encoded."""

    def begin(self, on_over: Callable[[], None]) -> bool:
        """Answers in a task, what is small."""
        if not self._is_small:
            return False
        self._task = asyncio.ensure_future(self._answering)
        self._task.add_done_callback(lambda task: None if task.cancelled() else on_over())
        return True

    def answer(self) -> Answer[ResultT]:
        """What the task gave."""
        return self._task.result()

    def drop(self, reason: ConveyorError) -> None:
        """Cancels the task, if there is one."""
        if self._is_small:
            self._task.cancel()
        else:
            self._answering.close()


def question(
    answer: Callable[Concatenate[FakeGateway, P], Coroutine[object, object, Answer[ResultT]]],
) -> Callable[Concatenate[FakeGateway, P], FakeQuestion[ResultT]]:
    """A method of the gateway whose answer is worked out by a coroutine."""

    def ask(gateway: FakeGateway, *args: P.args, **kwargs: P.kwargs) -> FakeQuestion[ResultT]:
        return FakeQuestion(answer(gateway, *args, **kwargs), is_small=gateway.is_small)

    return ask


@dataclass
class FakeGateway:
    """Echoes. `error` is raised instead, if set; the text `wait` waits until it is cancelled or its deadline.

    is_small: whether requests need no task.
    gather_s: seconds that requests wait to be read.
    """

    sessions: Sessions | None = None
    error: Exception | None = None
    is_small: bool = True
    gather_s: float = 0.0
    calls: list[Call] = field(default_factory=list)
    asked: list[dict[str, object]] = field(default_factory=list)
    waiting: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    def gather(self, read: Callable[[], None]) -> None:
        """Waits for nobody, or for a time."""
        loop = asyncio.get_running_loop()
        if self.gather_s:
            loop.call_later(self.gather_s, read)
        else:
            loop.call_soon(read)

    @question
    async def sentiment(
        self, call: Call, inputs: Sequence[str], model: str | None, version: str | None
    ) -> Answer[Sentiment]:
        """Labels each text with itself."""
        await self._begin(call, {"inputs": inputs, "model": model, "version": version})
        if "wait" in inputs:
            await self._wait(call)
        return Answer(call.model, call.version, [Sentiment(text, SCORE, {text: SCORE}) for text in inputs])

    @question
    async def tag(
        self,
        call: Call,
        inputs: Sequence[str] | None,
        tokens: Sequence[Sequence[str]] | None,
        model: str | None,
        version: str | None,
    ) -> Answer[Tagging]:
        """Makes each text one token and one span; refuses the token `bad`."""
        await self._begin(call, {"inputs": inputs, "tokens": tokens, "model": model, "version": version})
        if (inputs is None) == (tokens is None):
            raise InvalidArgument("give either inputs or tokens", field="inputs")
        for index, item in enumerate(tokens or ()):
            if "bad" in item:
                raise InvalidArgument("a bad token", field=f"inputs[{index}][{list(item).index('bad')}]")
        results = [
            Tagging([Token(text, 0, len(text), "X", SCORE)], [Span(text, 0, len(text), "L", SCORE)])
            for text in (inputs if inputs is not None else map(" ".join, tokens or ()))
        ]
        return Answer(call.model, call.version, results)

    @question
    async def forecast(
        self,
        call: Call,
        series: Sequence[Series],
        horizon: int | None,
        quantiles: Sequence[float] | None,
        model: str | None,
        version: str | None,
    ) -> Answer[Forecast]:
        """Forecasts the series itself; timestamps only where there is a start."""
        await self._begin(
            call,
            {"series": series, "horizon": horizon, "quantiles": quantiles, "model": model, "version": version},
        )
        results = [
            Forecast(
                mean=item.values.tolist(),
                quantiles={str(level): item.values.tolist() for level in quantiles or ()},
                targets=[f"t{index}" for index in range(item.values.shape[1])],
                timestamps=None if item.start is None else [item.start.isoformat()],
            )
            for item in series
        ]
        return Answer(call.model, call.version, results)

    def models(self) -> Sequence[ModelDescription]:
        """One model."""
        if self.error is not None:
            raise self.error
        return [self.model("echo")]

    def model(self, name: str) -> ModelDescription:
        """The one model."""
        if name != "echo":
            raise NotFound(f"there is no model {name!r} here")
        return ModelDescription(
            name="echo",
            task="sentiment",
            version="3",
            versions=["1", "3"],
            state="ready",
            default=True,
            description="Says what it hears.",
            labels=["negative", "positive"],
            plan={"executor": "none"},
        )

    async def _begin(self, call: Call, asked: dict[str, object]) -> None:
        self.calls.append(call)
        self.asked.append(asked)
        if self.error is not None:
            raise self.error
        call.model, call.version = "echo", "3"
        await asyncio.sleep(0)

    async def _wait(self, call: Call) -> None:
        self.waiting.set()
        try:
            timeout_s = None if call.deadline == float("inf") else call.deadline - time.monotonic()
            await asyncio.wait_for(self.released.wait(), timeout_s)
        except TimeoutError:
            raise DeadlineExceeded("the deadline passed before the answer") from None
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


def leaves(root: type[ConveyorError] = ConveyorError) -> list[type[ConveyorError]]:
    """The classes of the error tree that have no subclasses."""
    below = root.__subclasses__()
    return [leaf for child in below for leaf in leaves(child)] if below else [root]
