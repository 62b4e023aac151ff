"""Rare questions about one session: tell, fork, export, import, close."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from conveyor.engine.sessions.desk import NO_SESSION, SessionDesk
from conveyor.engine.sessions.index import ABSENT
from conveyor.engine.sessions.options import SessionOptions
from conveyor.engine.sessions.record import BadRecord, Record, pack, sign, verify
from conveyor.errors import Aborted, InvalidArgument, NotFound
from conveyor.wire.sessions import KEY_BYTES, SessionCall, SessionState, engine_of

__all__ = ["SessionCalls"]

_CLOSED = "the session was closed"


class SessionCalls:
    """Answers calls about the sessions of one model, each as its last finished append left it. Same thread as the
    engine.

    Args:
        package: Gives the digest of the model's package.
    """

    def __init__(self, desk: SessionDesk, package: Callable[[], bytes], options: SessionOptions) -> None:
        self._desk = desk
        self._life = desk.life
        self._package = package
        self._options = options

    def answer(self, call: SessionCall) -> SessionState:
        """Does what a call asks.

        Raises:
            ConveyorError: It can't be done.
        """
        match call.verb:
            case "tell":
                return self._tell(self._find(call.session))
            case "fork":
                return self._make(call.other, self._record(self._find(call.session)))
            case "export":
                row = self._find(call.session)
                blob = sign(pack(self._record(row)), call.model, self._package(), self._options.state_key)
                return self._tell(row, blob)
            case "import":
                return self._import(call)
            case "close":
                row = self._find(call.session)
                told = self._tell(row)
                self._desk.end_session(row, _CLOSED)
                return told

    def _find(self, session: bytes) -> int:
        row = int(self._life.find(_array(session))[0])
        if row == ABSENT:
            raise NotFound(NO_SESSION)
        return row

    def _tell(self, row: int, blob: bytes = b"") -> SessionState:
        return SessionState(int(self._life.table.steps[row]), self._life.expires_in_s(row), blob)

    def _record(self, row: int) -> Record:
        append = self._desk.long.of(row)
        if append is None:
            return self._life.record(row)
        if append.before is None:
            raise Aborted("the session is being opened; try again once that is answered")
        return append.before

    def _import(self, call: SessionCall) -> SessionState:
        raw = verify(call.blob, call.model, self._package(), self._options.state_key)
        try:
            record = self._life.read_record(raw)
        except BadRecord as error:
            raise InvalidArgument(f"the state {error}") from error
        row = int(self._life.find(_array(call.session))[0])
        if row == ABSENT:
            return self._make(call.session, record)
        if self._desk.long.of(row) is not None or self._desk.waiting.waits_for(row):
            raise Aborted("appends to the session are under way; nothing was imported")
        self._life.put(row, record)
        return self._tell(row)

    def _make(self, session: bytes, record: Record) -> SessionState:
        """A new session that begins as a record says."""
        key = _array(session)
        assert engine_of(key, self._options.num_engines)[0] == self._options.engine
        if self._life.find(key)[0] != ABSENT:
            raise Aborted("there is a session of this id already")
        row = int(self._life.open(key)[0])
        self._life.put(row, record)
        return self._tell(row)


def _array(session: bytes) -> npt.NDArray[np.uint8]:
    assert len(session) == KEY_BYTES
    return np.frombuffer(session, dtype=np.uint8)[None]
