"""Conversions between domain and messages, and the search for faults in bytes, over generated values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conveyor.api.rpc.messages import forecast_response, sentiment_response, series_from_message, tag_response
from conveyor.api.rpc.parsing import parse_message
from conveyor.api.rpc.proto.conveyor.v1 import conveyor_pb2 as pb
from conveyor.domain import Answer, Forecast, Sentiment, Span, Tagging, Token
from conveyor.errors import InvalidArgument
from conveyor.gateway.limits import Limits

floats = st.floats(allow_nan=False)
texts = st.text(max_size=8)
offsets = st.integers(0, 2**31 - 1)
matrices = st.tuples(st.integers(1, 4), st.integers(1, 3)).flatmap(
    lambda shape: st.lists(st.lists(floats, min_size=shape[1], max_size=shape[1]), min_size=shape[0], max_size=shape[0])
)


@given(matrices, st.integers(0, 1))
def test_series_keep_their_rows(rows: list[list[float]], missing: int) -> None:
    """Row-major values become the same array, NaN included."""
    array = np.array(rows)
    array[0, 0] = np.nan if missing else array[0, 0]
    series = series_from_message(pb.Series(values=array.ravel(), features=array.shape[1]), "series[0]", Limits())

    np.testing.assert_array_equal(array, series.values)


@given(matrices)
def test_forecasts_keep_their_rows(rows: list[list[float]]) -> None:
    """A forecast flattened and shaped again is the same, for the mean and for each level."""
    targets = [f"t{index}" for index in range(len(rows[0]))]
    message = forecast_response(Answer("m", "1", [Forecast(rows, {"0.1": rows}, targets, ["now"])]))

    for values in (message.results[0].mean, message.results[0].quantiles["0.1"]):
        flat = list(values.values)
        width = values.targets
        assert rows == [flat[start : start + width] for start in range(0, values.steps * width, width)]


@given(st.dictionaries(texts, floats, max_size=4), texts, floats)
def test_sentiments_keep_every_score(scores: dict[str, float], label: str, score: float) -> None:
    """Doubles in a map arrive bit for bit."""
    message = sentiment_response(Answer("m", "1", [Sentiment(label, score, scores)]))
    (result,) = pb.SentimentResponse.FromString(message.SerializeToString()).results

    assert (label, score, scores) == (result.label, result.score, dict(result.scores))


@given(st.lists(st.tuples(texts, offsets, offsets, texts, floats), max_size=4))
def test_taggings_keep_every_token_and_span(items: list[tuple[str, int, int, str, float]]) -> None:
    """Texts, offsets, tags and scores arrive in order."""
    tagging = Tagging([Token(*item) for item in items], [Span(*item) for item in items])
    message = tag_response(Answer("m", "1", [tagging]))
    (result,) = pb.TagResponse.FromString(message.SerializeToString()).results

    assert items == [(token.text, token.start, token.end, token.tag, token.score) for token in result.tokens]
    assert items == [(span.text, span.start, span.end, span.label, span.score) for span in result.spans]


@given(st.binary(max_size=64))
def test_any_bytes_are_a_message_or_the_callers_fault(raw: bytes) -> None:
    """No bytes make the search for the fault fail in another way."""
    for message_type in (pb.SentimentRequest, pb.TagRequest, pb.ForecastRequest):
        try:
            parse_message(message_type, raw)
        except InvalidArgument as error:
            assert "protobuf" in error.message  # noqa: PT017  either outcome is right, a third is not


@given(st.lists(texts, max_size=4), st.lists(texts, max_size=4))
def test_the_text_that_is_not_utf8_is_named(before: list[str], after: list[str]) -> None:
    """Its index counts the texts before it."""
    raw = (
        pb.SentimentRequest(inputs=before, model="m").SerializeToString()
        + b"\x0a\x01\x80"
        + pb.SentimentRequest(inputs=after).SerializeToString()
    )
    with pytest.raises(InvalidArgument) as caught:
        parse_message(pb.SentimentRequest, raw)

    assert f"inputs[{len(before)}]" == caught.value.field
