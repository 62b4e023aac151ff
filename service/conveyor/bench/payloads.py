"""Requests as bytes, made before the clock runs."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from typing import Any, cast

from conveyor.api.rpc.proto.conveyor.v1 import conveyor_pb2 as pb
from conveyor.bench.inputs import Item, is_tokens
from conveyor.bench.options import Protocol
from conveyor.errors import InvalidArgument
from conveyor.spec import Task

__all__ = ["build_payloads"]


def build_payloads(
    items: Sequence[Item], *, task: Task, protocol: Protocol, model: str | None, items_per_request: int, seed: int
) -> list[bytes]:
    """Returns the bodies (HTTP) or messages (gRPC) that ask about every item once, in an order the seed decides.

    The last request is filled up from the front, so that every one holds `items_per_request` items.

    Raises:
        InvalidArgument: Texts and token lists are mixed, or an item cannot be sent.
    """
    tokens = task == "tag" and is_tokens(items)
    order = list(items)
    # Files are often sorted, by length or by label; requests of users are not.
    random.Random(seed).shuffle(order)
    groups = [
        [order[index % len(order)] for index in range(start, start + items_per_request)]
        for start in range(0, len(order), items_per_request)
    ]
    try:
        if protocol == "grpc":
            return [_message(group, task, model, tokens) for group in groups]
        return [_body(group, task, model) for group in groups]
    except UnicodeEncodeError as error:
        raise InvalidArgument("an item holds a lone surrogate, which UTF-8 has no bytes for", field="input") from error


def _body(items: Sequence[Item], task: Task, model: str | None) -> bytes:
    body: dict[str, object] = {"series" if task == "forecast" else "inputs": items}
    if model is not None:
        body["model"] = model
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def _message(items: Sequence[Item], task: Task, model: str | None, tokens: bool) -> bytes:
    name = model or ""
    if task == "sentiment":
        return pb.SentimentRequest(inputs=cast(Sequence[str], items), model=name).SerializeToString()
    if task == "forecast":
        series = [_series(cast(dict[str, Any], item)) for item in items]
        return pb.ForecastRequest(series=series, model=name).SerializeToString()
    if tokens:
        lists = [pb.TokenList(tokens=cast(list[str], item)) for item in items]
        return pb.TagRequest(tokens=lists, model=name).SerializeToString()
    return pb.TagRequest(inputs=cast(Sequence[str], items), model=name).SerializeToString()


def _series(item: dict[str, Any]) -> pb.Series:
    rows = [row if isinstance(row, list) else [row] for row in item["values"]]
    return pb.Series(
        values=[math.nan if value is None else value for row in rows for value in row],
        features=len(rows[0]) if rows else 0,
        start=item.get("start") or "",
        frequency=item.get("frequency") or "",
    )
