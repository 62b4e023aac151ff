"""What is sent arrives as it was."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from conveyor.domain import ModelKey
from conveyor.errors import ConveyorError, Internal, InvalidArgument, PackageError, Problem, Unavailable
from conveyor.wire.channel import Channel
from conveyor.wire.messages import PRIORITIES, BatchReport, FailureBlock, ResultBlock, RowBlock
from conveyor.wire.port import CostReport, EngineStats, PlanReport
from conveyor.wire.seam import SEAM, Answered, AskSession, Cancel, Fault, LoadModel, TellStats, UnloadModel
from conveyor.wire.sessions import NO_EXPECTATION, SessionBlock, SessionCall, SessionResults, SessionState

KEY = ModelKey("sentiment-en", "10")


def same(one: object, other: object) -> bool:
    """Equal in every field; arrays in dtype, shape and every bit."""
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
    if type(one) is not type(other):
        return isinstance(one, list | tuple) and isinstance(other, list | tuple) and list(one) == list(other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if hasattr(one, "__dataclass_fields__"):
        return all(same(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))  # type: ignore[arg-type]
    return one == other


@st.composite
def row_blocks(draw: st.DrawFn) -> RowBlock:
    """Blocks of rows of any length, zero included, of numbers or token ids."""
    lengths = draw(st.lists(st.integers(0, 30), min_size=1, max_size=8))
    width = draw(st.integers(1, 3))
    dtype = draw(st.sampled_from([np.int32, np.float32]))
    rows = len(lengths)
    return RowBlock(
        KEY,
        draw(st.lists(st.integers(0, 2**63 - 1), min_size=rows, max_size=rows)),
        draw(st.lists(st.floats(allow_nan=False), min_size=rows, max_size=rows)),
        draw(st.lists(st.sampled_from(PRIORITIES), min_size=rows, max_size=rows)),
        draw(st.lists(st.integers(0, 2**63 - 1), min_size=rows, max_size=rows)),
        lengths,
        draw(arrays.arrays(dtype, (sum(lengths), width))),
    )


@given(row_blocks())
def test_a_block_of_rows_arrives_bit_for_bit(block: RowBlock) -> None:
    """NaN among the numbers, infinite deadlines and empty rows included."""
    assert same(block, SEAM.decode(SEAM.encode(block)))


@given(row_blocks(), st.data())
def test_a_part_of_a_block_has_the_rows_and_inputs_of_those_rows(block: RowBlock, data: st.DataObject) -> None:
    """What is sent to one of several engines is what these rows are."""
    first = data.draw(st.integers(0, len(block.ids) - 1))
    last = data.draw(st.integers(first + 1, len(block.ids) + 3))
    part = block.rows(first, last)
    starts = np.concatenate([[0], np.cumsum(block.lengths)])

    assert block.ids[first:last] == part.ids
    assert same(block.inputs[starts[first] : starts[min(last, len(block.ids))]], part.inputs)


def test_every_other_message_arrives_as_it_was() -> None:
    """Answers, failures, questions and what is answered to them."""
    report = BatchReport(KEY, np.array([0.5, 0.25]), 0.01, 2, False, 9, 3)
    plan = PlanReport("torch", "cpu", "float32", "reference")
    stats = EngineStats("cpu", {KEY: 3}, {"weights": 5}, {KEY: CostReport([1], [8], [[0.1]], 1e-6)}, {KEY: plan}, 2)
    appends = SessionBlock(
        KEY,
        ids=np.array([5, 6]),
        sessions=np.arange(32, dtype=np.uint8).reshape(2, 16),
        opens=np.array([True, False]),
        deadlines=np.array([np.inf, 3.5]),
        expected=np.array([NO_EXPECTATION, 7]),
        forecasts=np.array([False, True]),
        lengths=np.array([0, 2], dtype=np.int32),
        values=np.array([[1.0], [np.nan]]),
        starts=["2024-05-01T00:00:00+02:00", ""],
    )
    applied = SessionResults(
        KEY,
        ids=np.array([6]),
        steps=np.array([9]),
        expires_in_s=np.array([3600.0]),
        forecast_rows=np.array([0], dtype=np.int32),
        forecasts=np.ones((1, 4, 1, 3), dtype=np.float32),
        loc=np.array([[2.0]]),
        scale=np.array([[0.5]]),
        starts=[""],
        report=report,
    )
    messages = [
        appends,
        applied,
        AskSession(7, SessionCall("fork", KEY, bytes(16), other=bytes(range(16)))),
        Answered(7, session=SessionState(9, 3600.0, b"state")),
        ResultBlock(np.array([4, 7]), np.array([2, 3], np.int32), True, {"tags": np.arange(5, dtype=np.int32)}, report),
        FailureBlock(KEY, [1, 2], "QueueFull", "full"),
        Cancel(np.array([3])),
        LoadModel(1, KEY, Path("/models/a/1")),
        UnloadModel(2, KEY),
        TellStats(3),
        Answered(3, stats=stats),
        Answered(4, fault=Fault("PackageError", "wrong", [Problem("model.toml", "task", "unknown")])),
    ]
    for message in messages:
        assert same(message, SEAM.decode(SEAM.encode(message))), message


def test_arrays_that_arrive_can_be_written_to() -> None:
    """torch takes them as they are."""
    cancel = SEAM.decode(SEAM.encode(Cancel(np.array([3]))))
    assert isinstance(cancel, Cancel)
    cancel.ids[0] = 4


@pytest.mark.parametrize("raw", [b"", b"\xff", b"\x00", SEAM.encode(TellStats(1))[:-1]])
def test_what_is_no_message_is_refused(raw: bytes) -> None:
    """Nothing is made of it."""
    with pytest.raises(ValueError, match=r".*"):
        SEAM.decode(raw)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Unavailable("gone"), Unavailable),
        (InvalidArgument("bad"), InvalidArgument),
        (PackageError([Problem("a", "b", "c")]), PackageError),
        (RuntimeError("secret"), Internal),
    ],
)
def test_an_error_is_the_same_at_the_other_end(error: Exception, kind: type[ConveyorError]) -> None:
    """Its class and what it says; what has no class of ours is a fault of the server."""
    restored = Fault.of(error).to_error()
    assert kind is type(restored)
    assert str(error) == restored.message
    if isinstance(error, PackageError):
        assert isinstance(restored, PackageError)
        assert error.problems == restored.problems


@pytest.mark.anyio
async def test_messages_keep_their_order_whatever_pieces_they_arrive_in() -> None:
    """Large and small ones, sent at once: each is received once, in order; the end is told once."""
    one, another = socket.socketpair()
    received: list[object] = []
    lost = asyncio.Event()
    receiver = Channel(SEAM, received.append, lost.set)
    sender = Channel(SEAM, received.append, lambda: None)
    await receiver.open(one)
    await sender.open(another)
    sent = [Cancel(np.arange(size, dtype=np.int64)) for size in (0, 1, 200_000, 3, 0, 70_000)]
    for message in sent:
        sender.send(message)
    sender.close()
    await asyncio.wait_for(lost.wait(), 60)

    assert len(sent) == len(received)
    assert all(same(message, found) for message, found in zip(sent, received, strict=True))
    sender.send(TellStats(1))
