"""Items from files, and requests made of them."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conveyor.api.rpc.proto.conveyor.v1 import conveyor_pb2 as pb
from conveyor.bench.inputs import own_items, read_items
from conveyor.bench.payloads import build_payloads
from conveyor.errors import InvalidArgument
from conveyor.spec import Task

# What splitlines() would split at, but a text may hold.
LINE = st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), min_size=1)


@given(lines=st.lists(LINE, min_size=1, max_size=20), end=st.sampled_from(["\n", "\r\n"]))
def test_a_text_file_is_a_text_a_line(tmp_path_factory: pytest.TempPathFactory, lines: list[str], end: str) -> None:
    """Only line ends end a line; empty lines are left out."""
    path = tmp_path_factory.mktemp("inputs") / "texts.txt"
    path.write_bytes(end.join([*lines, "", ""]).encode())

    assert lines == read_items(path, "sentiment")


@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=20))
def test_json_lines_hold_any_text(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    """Line ends and empty texts included."""
    path = tmp_path_factory.mktemp("inputs") / "texts.jsonl"
    path.write_text("".join(json.dumps(text) + "\n" for text in texts))

    assert texts == read_items(path, "tag")


@pytest.mark.parametrize(
    ("task", "name", "content", "field"),
    [
        ("sentiment", "a.jsonl", '"good"\n3\n', "line 2"),
        ("sentiment", "a.jsonl", '"good"\n\n{\n', "line 3"),
        ("tag", "a.jsonl", '["two", 3]\n', "line 1[1]"),
        ("forecast", "a.jsonl", '{"values": [1, "x"]}\n', "line 1.values[1]"),
        ("forecast", "a.txt", "1 2 3\n", "input"),
        ("sentiment", "a.txt", "\n\n", "input"),
    ],
)
def test_a_wrong_file_is_refused_by_line(tmp_path: Path, task: Task, name: str, content: str, field: str) -> None:
    """Before anything is sent."""
    path = tmp_path / name
    path.write_text(content)

    with pytest.raises(InvalidArgument) as caught:
        read_items(path, task)
    assert str(caught.value.field).endswith(field)


def test_a_missing_file_and_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    """With the option's name."""
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe")
    for name in ("none.txt", "bytes.txt"):
        with pytest.raises(InvalidArgument) as caught:
            read_items(tmp_path / name, "sentiment")
        assert "input" == caught.value.field


@given(count=st.integers(1, 30), size=st.integers(1, 40), seed=st.integers(0, 1000))
def test_every_item_is_asked_about_in_requests_of_one_size(count: int, size: int, seed: int) -> None:
    """Each item is in the requests about as often as any other, in an order that the seed decides."""
    texts = [f"text {index}" for index in range(count)]
    bodies = [
        json.loads(payload)
        for payload in build_payloads(
            texts, task="sentiment", protocol="http", model=None, items_per_request=size, seed=seed
        )
    ]
    asked = Counter(text for body in bodies for text in body["inputs"])

    assert {size} == {len(body["inputs"]) for body in bodies}
    assert set(texts) == set(asked)
    assert max(asked.values()) - min(asked.values()) <= 1


@pytest.mark.parametrize("task", ["sentiment", "tag", "forecast"])
def test_both_protocols_are_asked_the_same(task: Task) -> None:
    """Our own items, in the same order, with the model's name."""
    messages: dict[str, Any] = {"sentiment": pb.SentimentRequest, "tag": pb.TagRequest, "forecast": pb.ForecastRequest}
    bodies, raws = (
        build_payloads(own_items(task), task=task, protocol=protocol, model="m", items_per_request=2, seed=3)
        for protocol in ("http", "grpc")
    )

    assert len(bodies) == len(raws)
    for body, message in zip(map(json.loads, bodies), map(messages[task].FromString, raws), strict=True):
        assert "m" == body["model"] == message.model
        if task == "forecast":
            assert body["series"] == [
                {"values": list(series.values), "start": series.start, "frequency": series.frequency}
                for series in message.series
            ]
        else:
            assert body["inputs"] == list(message.inputs)


def test_rows_tokens_and_gaps_become_messages() -> None:
    """Rows are laid out row-major, null is NaN, and token lists stay lists."""
    series = {"values": [[1.0, None], [3.0, 4.0]]}
    (raw,) = build_payloads([series], task="forecast", protocol="grpc", model=None, items_per_request=1, seed=0)
    (sent,) = pb.ForecastRequest.FromString(raw).series
    assert 2 == sent.features
    assert [1.0, 3.0, 4.0] == [value for value in sent.values if not math.isnan(value)]
    assert math.isnan(sent.values[1])

    (raw,) = build_payloads([["two", "ships"]], task="tag", protocol="grpc", model=None, items_per_request=1, seed=0)
    assert ["two", "ships"] == list(pb.TagRequest.FromString(raw).tokens[0].tokens)


def test_texts_and_token_lists_are_not_mixed() -> None:
    """A request holds one kind."""
    with pytest.raises(InvalidArgument):
        build_payloads(["two", ["two"]], task="tag", protocol="http", model=None, items_per_request=1, seed=0)
