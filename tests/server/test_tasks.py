"""The three tasks over real sockets, on both doors."""

from __future__ import annotations

import math

import httpx
import pytest
from google.protobuf.json_format import MessageToDict

from support.rpc import Client, pb


def post(http: httpx.Client, path: str, body: object) -> dict:
    """The answer to a request that must succeed."""
    response = http.post(path, json=body)
    assert 200 == response.status_code, response.text
    return response.json()


def test_sentiment_answers_in_order_with_every_label(http: httpx.Client) -> None:
    """A list gives a result an item; probabilities sum to one and the label is the likeliest."""
    answer = post(http, "/v1/sentiment", {"inputs": ["a good film", "", "bad"]})

    assert ("sentiment-en", "1") == (answer["model"], answer["version"])
    assert 3 == len(answer["results"])
    for result in answer["results"]:
        assert {"negative", "positive"} == set(result["scores"])
        assert pytest.approx(1, abs=1e-6) == sum(result["scores"].values())
        assert result["score"] == result["scores"][result["label"]] == max(result["scores"].values())


def test_one_text_is_a_list_of_one(http: httpx.Client) -> None:
    """`inputs` takes an item or a list; `results` is always a list."""
    assert post(http, "/v1/sentiment", {"inputs": "fine"}) == post(http, "/v1/sentiment", {"inputs": ["fine"]})


def test_offsets_are_code_points_into_the_text(http: httpx.Client) -> None:
    """Every token and span is the slice of the input that it says it is, also behind characters outside the BMP."""
    text = "😀 good  film\t(very good)"
    (result,) = post(http, "/v1/tag", {"inputs": text})["results"]

    assert ["😀", "good", "film", "(", "very", "good", ")"] == [token["text"] for token in result["tokens"]]
    assert all(text[token["start"] : token["end"]] == token["text"] for token in result["tokens"])


def test_given_tokens_are_kept_one_to_one(http: httpx.Client) -> None:
    """Tokens come back as given, with offsets into their join by one space."""
    tokens = ["two ships", "don't", "meet"]
    (result,) = post(http, "/v1/tag", {"inputs": [tokens]})["results"]

    assert tokens == [token["text"] for token in result["tokens"]]
    assert all(" ".join(tokens)[token["start"] : token["end"]] == token["text"] for token in result["tokens"])


def test_words_cover_the_text_and_never_cross_white_space(http: httpx.Client) -> None:
    """The spans of a segmentation model are its words, in order, without gaps but white space."""
    text = "今天 天气\n很好"
    (result,) = post(http, "/v1/tag", {"inputs": text, "model": "segment-zh"})["results"]

    assert text.translate({ord(" "): None, ord("\n"): None}) == "".join(span["text"] for span in result["spans"])
    assert {"word"} == {span["label"] for span in result["spans"]}


def test_a_forecast_has_times_only_if_it_has_a_start(http: httpx.Client) -> None:
    """Timestamps go on where the history ends."""
    values = [10.0, None, 12.0]
    with_start = {"values": values, "start": "2024-01-01T00:00:00+01:00", "frequency": "30min"}
    first, second = post(http, "/v1/forecast", {"series": [with_start, {"values": values}], "horizon": 2})["results"]

    assert ["2024-01-01T01:30:00+01:00", "2024-01-01T02:00:00+01:00"] == first["timestamps"]
    assert "timestamps" not in second
    assert ["demand"] == first["targets"]
    assert (2, 1) == (len(first["mean"]), len(first["mean"][0]))


def test_quantiles_are_ordered_and_interpolated(http: httpx.Client) -> None:
    """A level between two trained ones lies on the line between them."""
    body = {"series": [{"values": [1.0, 2.0, 3.0]}], "horizon": 3, "quantiles": [0.1, 0.3, 0.5, 0.9]}
    (result,) = post(http, "/v1/forecast", body)["results"]
    for step in range(3):
        low, between, middle, high = (result["quantiles"][level][step][0] for level in ("0.1", "0.3", "0.5", "0.9"))
        assert low <= between <= middle <= high
        assert pytest.approx((low + middle) / 2) == between


def test_both_doors_give_the_same_answer(http: httpx.Client, rpc: Client) -> None:
    """An answer does not depend on the protocol."""
    text = "two ships that never met"
    over_grpc = MessageToDict(rpc.call("Sentiment", pb.SentimentRequest(inputs=[text])))
    assert post(http, "/v1/sentiment", {"inputs": text}) == over_grpc

    (by_http,) = post(http, "/v1/tag", {"inputs": text})["results"]
    by_grpc = rpc.call("Tag", pb.TagRequest(inputs=[text])).results[0]
    assert [token["tag"] for token in by_http["tokens"]] == [token.tag for token in by_grpc.tokens]
    assert [token["score"] for token in by_http["tokens"]] == [token.score for token in by_grpc.tokens]

    (by_http,) = post(http, "/v1/forecast", {"series": [{"values": [1.0, None, 3.0]}]})["results"]
    series = pb.Series(values=[1.0, math.nan, 3.0])
    by_grpc = rpc.call("Forecast", pb.ForecastRequest(series=[series])).results[0]
    assert [row[0] for row in by_http["mean"]] == list(by_grpc.mean.values)
    assert {"0.1", "0.5", "0.9"} == set(by_grpc.quantiles)


def test_models_are_described_alike_on_both_doors(http: httpx.Client, rpc: Client) -> None:
    """Each model says what it is, which versions serve, and how it is executed."""
    models = {model["name"]: model for model in http.get("/v1/models").json()["models"]}

    assert {"sentiment-en", "pos-en", "segment-zh", "forecast-electricity"} == set(models)
    plan = {"executor": "torch", "device": "cpu", "precision": "float32", "source": "no plan.lock"}
    assert plan == models["pos-en"]["plan"]
    assert ["negative", "positive"] == models["sentiment-en"]["labels"]
    assert (6, "30min", True) == tuple(
        models["forecast-electricity"][name] for name in ("max_horizon", "frequency", "streamable")
    )
    assert models["segment-zh"]["default"] is False
    listed, alone = models["pos-en"], http.get("/v1/models/pos-en").json()
    # What an execution costs is corrected with every one, those of the tests before this included.
    first, second = listed.pop("costs"), alone.pop("costs")
    assert listed == alone
    assert (first["rows"], first["steps"]) == (second["rows"], second["steps"])
    assert sorted(models) == [model.name for model in rpc.call("ListModels", pb.ListModelsRequest()).models]
