"""What crosses the engine seam between processes, beside the blocks: questions, their answers, cancellations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from conveyor.domain import ModelKey
from conveyor.errors import ConveyorError, Internal, PackageError, Problem, error_named
from conveyor.wire.codec import Codec
from conveyor.wire.messages import FailureBlock, ResultBlock, RowBlock
from conveyor.wire.port import EngineStats
from conveyor.wire.sessions import SessionBlock, SessionCall, SessionResults, SessionState

__all__ = ["SEAM", "Answered", "AskSession", "Cancel", "Fault", "LoadModel", "TellStats", "UnloadModel"]


@dataclass(frozen=True, slots=True, eq=False)
class Cancel:
    """Nobody waits for these rows any more. ids: int64 [rows]."""

    ids: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LoadModel:
    """Asks to load a package. number: chosen by who asks, repeated by the answer."""

    number: int
    key: ModelKey
    directory: Path


@dataclass(frozen=True, slots=True)
class UnloadModel:
    """Asks to forget a model."""

    number: int
    key: ModelKey


@dataclass(frozen=True, slots=True)
class TellStats:
    """Asks for the engine as it stands."""

    number: int


@dataclass(frozen=True, slots=True)
class AskSession:
    """Asks about one session."""

    number: int
    call: SessionCall


@dataclass(frozen=True, slots=True)
class Fault:
    """An error on its way: the name of a class in `errors`, and what it says."""

    error: str
    message: str
    problems: Sequence[Problem] = ()

    @classmethod
    def of(cls, error: Exception) -> Fault:
        """The fault that gives this error at the other end; what is no `ConveyorError` becomes `Internal`."""
        if isinstance(error, PackageError):
            return cls(PackageError.__name__, error.message, error.problems)
        if isinstance(error, ConveyorError):
            return cls(type(error).__name__, error.message)
        return cls(Internal.__name__, str(error))

    def to_error(self) -> ConveyorError:
        """The error."""
        if self.error == PackageError.__name__:
            return PackageError(list(self.problems))
        return error_named(self.error)(self.message)


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to the question of that number: an error, or none, with the state of the engine or of a session if
    that was asked."""

    number: int
    fault: Fault | None = None
    stats: EngineStats | None = None
    session: SessionState | None = None


# Front end to engine, then engine to front end.
SEAM = Codec(
    [
        *(RowBlock, SessionBlock, Cancel, LoadModel, UnloadModel, TellStats, AskSession),
        *(ResultBlock, SessionResults, FailureBlock, Answered),
    ]
)
