"""Small task requests, whatever their protocol: from their bytes to an answer or an error, without a task for each."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, TypeVar

from conveyor.api.outcome import record_outcome, shown_error, stopped
from conveyor.domain import Answer
from conveyor.errors import Code, ConveyorError
from conveyor.gateway.call import Call
from conveyor.gateway.question import Question
from conveyor.telemetry.metrics import Metrics

__all__ = ["Ask", "SmallRequest", "Together"]

ReplyT = TypeVar("ReplyT")
ResultT = TypeVar("ResultT")

# A request that was read: what is left is to ask the gateway, on the event loop.
Ask = Callable[[Call], Question[ResultT]]

# Returns the step that follows; None if none does, or not yet.
Step = Callable[["SmallRequest[Any]"], "Step | None"]


class Together:
    """Takes requests through their steps: many through one step, then all of them through the next.

    What a step runs and looks up then stays in the processor's caches from one request to the next
    (docs/architecture.md has figures).

    Args:
        gather: Calls what it is given once, when requests that have come by then are to be read; not at once.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, gather: Callable[[Callable[[], None]], object]) -> None:
        self._loop = loop
        self._gather = gather
        self._waiting: dict[Step, list[SmallRequest[Any]]] = {step: [] for step in STEPS}
        self._unread: list[SmallRequest[Any]] = []
        self._is_due = False

    def start(self, request: SmallRequest[Any]) -> None:
        """Has a request read and answered, with those that come meanwhile."""
        self._unread.append(request)
        if len(self._unread) == 1:
            self._gather(self._read)

    def _read(self) -> None:
        unread, self._unread = self._unread, []
        self._waiting[SmallRequest.read] += unread
        # No further: what is begun is to be sent before others are answered.
        self._take(_TO_BEGIN)
        if any(self._waiting.values()):
            self._schedule()

    def put(self, request: SmallRequest[Any], step: Step) -> None:
        """Has a request take a step behind `begin`, not at once."""
        self._waiting[step].append(request)
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._go)

    def _go(self) -> None:
        self._is_due = False
        self._take(_FROM_ANSWER)

    def _take(self, steps: Sequence[Step]) -> None:
        for step in steps:
            requests = self._waiting[step]
            if requests:
                self._waiting[step] = []
                if step is SmallRequest.begin:
                    SmallRequest.encode(requests)
                for request in requests:
                    try:
                        following = step(request)
                    except Exception as fault:
                        following = self._after(fault, request, step)
                    if following is not None:
                        self._waiting[following].append(request)

    def _after(self, fault: Exception, request: SmallRequest[Any], step: Step) -> Step | None:
        """What follows a step that failed. The requests behind it are not to feel it."""
        try:
            if step not in _UNANSWERABLE:
                return request.fail(fault)
        except Exception as another:
            fault = another
        self._report(fault)
        try:
            request.abort()
        except Exception as another:
            self._report(another)
        return None

    def _report(self, fault: Exception) -> None:
        self._loop.call_exception_handler(
            {"message": "a request failed while it was being answered", "exception": fault}
        )


class SmallRequest(ABC, Generic[ReplyT]):
    """One request and its reply, in steps. It begins with `start`.

    Args:
        raw: Its bytes.
        started_s: Monotonic seconds of its arrival.
    """

    __slots__ = (
        "_ask",
        "_call",
        "_code",
        "_ended",
        "_metrics",
        "_question",
        "_raw",
        "_reply",
        "_result",
        "_started_s",
        "_together",
    )

    def __init__(self, together: Together, metrics: Metrics, call: Call, raw: bytes, started_s: float) -> None:
        self._together = together
        self._metrics = metrics
        self._call = call
        self._raw = raw
        self._started_s = started_s
        self._ask: Ask[Any] | None = None
        # From when the gateway has let it in until the engine has answered.
        self._question: Question[Any] | None = None
        self._result: Answer[Any] | None = None
        self._reply: ReplyT | None = None
        self._code = Code.INTERNAL
        # Why it is not to be begun.
        self._ended: ConveyorError | None = None

    def start(self) -> None:
        """Has it read and answered."""
        self._together.start(self)

    def end(self, reason: ConveyorError) -> None:
        """Ends the request, which is answered with `reason`, unless the engine has answered it or a task does."""
        if self._drop(reason):
            self._together.put(self, self._refuse(reason))
        else:
            self._ended = reason

    def read(self) -> Step:
        """Reads its terms and its items."""
        raw, self._raw = self._raw, b""
        if self._ended is not None:
            return self._refuse(self._ended)
        self._ask = self._read(raw)
        return SmallRequest.ask

    def ask(self) -> Step:
        """Has the gateway let the request in."""
        # It holds the items.
        ask, self._ask = self._ask, None
        assert ask is not None
        self._question = ask(self._call)
        return SmallRequest.begin

    @staticmethod
    def encode(requests: Sequence[SmallRequest[Any]]) -> None:
        """Encodes the requests that are begun next."""
        # Those that could not be encoded together are encoded one by one, which says of each what was wrong.
        with contextlib.suppress(Exception):
            Question.encode_together([request._asked() for request in requests])

    def begin(self) -> None:
        """Sends the request to the engine."""
        if not self._asked().begin(self._over):
            self._await()

    def _asked(self) -> Question[Any]:
        # Between `ask` and `begin` nothing else runs that could end it.
        assert self._question is not None
        return self._question

    def _over(self) -> None:
        self._together.put(self, SmallRequest.answer)

    def answer(self) -> Step | None:
        """Takes the answer of the engine."""
        question, self._question = self._question, None
        if question is None:
            # Ended in the turn in which the answer came.
            return None
        self._result = question.answer()
        return SmallRequest.write

    def hand_over(self) -> Question[Any]:
        """The question of a request that is not small after all: from now on it is the caller's."""
        question, self._question = self._question, None
        assert question is not None
        return question

    def write(self) -> Step:
        """Makes the reply of the answer."""
        result, self._result = self._result, None
        assert result is not None
        self._reply, self._code = self._write(result), Code.OK
        return SmallRequest.record

    def fail(self, fault: Exception) -> Step:
        """Makes the reply of what went wrong in a step before."""
        error = shown_error(fault, self._call.request_id)
        self._drop(error)
        return self._refuse(error)

    def _refuse(self, error: ConveyorError) -> Step:
        self._reply, self._code = self._refusal(error), error.code
        return SmallRequest.record

    def record(self) -> Step:
        """Counts and logs the request."""
        record_outcome(self._metrics, self._call, self._code, self._started_s)
        return SmallRequest.send

    def send(self) -> None:
        """Sends the reply, which it keeps no longer."""
        reply, self._reply = self._reply, None
        assert reply is not None
        self._send(reply)

    def abort(self) -> None:
        """Ends the request where no reply can be given."""
        self._drop(stopped())
        self._cut_off()

    def _drop(self, reason: ConveyorError) -> bool:
        """Takes the request back from the gateway; returns whether it was there."""
        question, self._question = self._question, None
        if question is not None:
            question.drop(reason)
        return question is not None

    @abstractmethod
    def _read(self, raw: bytes) -> Ask[Any]:
        """Sets the call's terms and reads the items; may raise any request error."""

    @abstractmethod
    def _await(self) -> None:
        """Has a task answer what is not small."""

    @abstractmethod
    def _write(self, answer: Answer[Any]) -> ReplyT:
        """The reply that is an answer."""

    @abstractmethod
    def _refusal(self, error: ConveyorError) -> ReplyT:
        """The reply that is an error."""

    @abstractmethod
    def _send(self, reply: ReplyT) -> None:
        """Sends the reply, if anybody is there."""

    @abstractmethod
    def _cut_off(self) -> None:
        """Leaves no caller waiting for ever."""


# What a request goes through, in this order.
STEPS: Final[Sequence[Step]] = (
    SmallRequest.read,
    SmallRequest.ask,
    SmallRequest.begin,
    SmallRequest.answer,
    SmallRequest.write,
    SmallRequest.record,
    SmallRequest.send,
)

# Those that come before a request is with the engine, and those behind.
_TO_BEGIN: Final = STEPS[: STEPS.index(SmallRequest.answer)]
_FROM_ANSWER: Final = STEPS[STEPS.index(SmallRequest.answer) :]

# Whose faults can't be told to the caller: it may have an answer, and is counted.
_UNANSWERABLE: Final = frozenset((SmallRequest.record, SmallRequest.send))
