"""A request that was let in, until it is answered."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, Generic, TypeVar

from conveyor.domain import Answer, ModelKey
from conveyor.errors import ConveyorError
from conveyor.gateway.admission import Room
from conveyor.gateway.answering import Answering
from conveyor.gateway.call import Call
from conveyor.gateway.posted import Posted
from conveyor.gateway.translation import Items
from conveyor.wire.messages import Rows

__all__ = ["Question"]

ResultT = TypeVar("ResultT")


class Question(Generic[ResultT]):
    """A request for which a model is chosen and room is held, which is given back when it ends. Event loop only.

    There are two ways to its answer. `await` is for any, may raise any request error, and when it is cancelled takes
    the rows out of the engine's queue. A small one can go without a task, whose coroutines take as long as the rest of
    it: `begin`, and then `answer` or `drop`.
    """

    __slots__ = ("_answering", "_call", "_items", "_key", "_posted", "_room", "_rows")

    def __init__(self, answering: Answering, call: Call, key: ModelKey, items: Items[ResultT], room: Room) -> None:
        self._answering = answering
        self._call = call
        self._key = key
        self._items = items
        self._room: Room | None = room
        self._rows: Rows | None = None
        self._posted: Posted | None = None

    def __await__(self) -> Generator[Any, None, Answer[ResultT]]:
        return self._in_task().__await__()

    @staticmethod
    def encode_together(questions: Iterable[Question[Any]]) -> None:
        """Encodes small requests that came together, before each is begun. One by one they take longer."""
        by_model: defaultdict[ModelKey, list[Question[Any]]] = defaultdict(list)
        for question in questions:
            by_model[question._key].append(question)
        for key, several in by_model.items():
            if len(several) > 1:
                encoded = several[0]._answering.encode_together(key, [question._items for question in several])
                for question, rows in zip(several, encoded, strict=True):
                    question._rows = rows

    def begin(self, on_over: Callable[[], None]) -> bool:
        """Encodes a small request and sends it to the engine.

        Args:
            on_over: Called once, later, when `answer` will return or raise; not after `drop`. Must not raise.

        Returns:
            False if it is not small: it must be awaited then.

        Raises:
            InvalidArgument: An item is not what the model takes; nothing is left to drop.
        """
        try:
            if self._rows is None:
                self._rows = self._answering.encode_if_quick(self._key, self._items)
            if self._rows is None or not self._items.decodes_quickly(self._rows):
                return False
            self._posted = self._answering.dispatcher.post(self._call, self._key, self._rows, on_over)
        except BaseException as fault:
            self._leave(fault)
            raise
        return True

    def answer(self) -> Answer[ResultT]:
        """The answer, once what was begun is over.

        Raises:
            ConveyorError: It failed, or its deadline has passed.
        """
        posted = self._posted
        assert posted is not None
        self._leave(posted.error)
        if posted.error is not None:
            raise posted.error
        return self._answer_of(self._items.decode(posted.results))

    def drop(self, reason: ConveyorError) -> None:
        """Ends it, whether it was begun or not; nothing happens if it has ended."""
        if self._posted is not None:
            self._answering.dispatcher.drop(self._posted)
        self._leave(reason)

    async def _in_task(self) -> Answer[ResultT]:
        room, self._room = self._room, None
        assert room is not None
        with room:
            return self._answer_of(await self._answering.results(self._call, self._key, self._items, self._rows))

    def _leave(self, fault: BaseException | None) -> None:
        room, self._room = self._room, None
        if room is not None:
            room.leave(fault)

    def _answer_of(self, results: Sequence[ResultT]) -> Answer[ResultT]:
        return Answer(self._key.name, self._key.version, results)
