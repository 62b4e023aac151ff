"""The packages that ship, served by a real process with their real weights."""

from __future__ import annotations

import concurrent.futures
import json
import math
import random
from pathlib import Path

import httpx
import pytest

import conveyor.training
from conveyor.training.behaviour import judge, read_cases
from support.rpc import Client, pb
from support.server import ServerProcess

MODELS = Path(__file__).parents[2] / "models"
RECIPES = Path(conveyor.training.__path__[0]) / "recipes"
PACKAGES = {
    "forecast-electricity": "forecast",
    "forecast-etth1": "forecast",
    "ner-en": "tag",
    "ner-zh": "tag",
    "pos-en": "tag",
    "segment-zh": "tag",
    "sentiment-en": "sentiment",
    "sentiment-zh": "sentiment",
}


def post(http: httpx.Client, path: str, body: object) -> list[dict]:
    """The results of a request that must succeed."""
    response = http.post(path, json=body)
    assert 200 == response.status_code, response.text
    return response.json()["results"]


def demand(steps: int) -> list[float]:
    """A made-up demand curve in half-hours: high by day, low by night, lower at weekends."""
    return [
        (5000 + 900 * math.sin((step % 48 - 16) / 48 * 2 * math.pi)) * (0.9 if (step // 48) % 7 >= 5 else 1.0)
        for step in range(steps)
    ]


def test_all_of_them_serve_and_are_small(shipped_http: httpx.Client) -> None:
    """Eight packages, each of 12 MB at most and all of 60, each with a card."""
    models = {model["name"]: model["state"] for model in shipped_http.get("/v1/models").json()["models"]}
    assert dict.fromkeys(PACKAGES, "ready") == models
    sizes = []
    for version in MODELS.glob("*/*"):
        sizes.append(sum(file.stat().st_size for file in version.iterdir()))
        assert (version / "README.md").stat().st_size > 500
    assert max(sizes) <= 12_000_000
    assert sum(sizes) <= 60_000_000


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("A wonderful, moving film with brilliant performances.", "positive"),
        ("Dull, clumsy and far too long; I wanted my money back.", "negative"),
        ("I LOVED every minute of it!", "positive"),
        ("<br />What a terrible waste of time.<br />", "negative"),
    ],
)
def test_sentiment_of_plain_sentences(shipped_http: httpx.Client, text: str, label: str) -> None:
    """Sentences whose sentiment nobody doubts."""
    (result,) = post(shipped_http, "/v1/sentiment", {"inputs": text})
    assert label == result["label"]


def test_a_sentence_is_cut_into_words(shipped_http: httpx.Client) -> None:
    """确实在理 is 确实 / 在理, not 确 / 实在 / 理: the model has learnt it from the words of its data."""
    (result,) = post(shipped_http, "/v1/tag", {"inputs": "他说的确实在理", "model": "segment-zh"})
    assert ["他", "说", "的", "确实", "在理"] == [span["text"] for span in result["spans"]]


def test_parts_of_speech_of_a_plain_sentence(shipped_http: httpx.Client) -> None:
    """Clitics are tokens of their own, and every word has its universal tag."""
    (result,) = post(shipped_http, "/v1/tag", {"inputs": "She doesn't like the old red car."})
    tags = [(token["text"], token["tag"]) for token in result["tokens"]]
    expected = ["She/PRON", "does/AUX", "n't/PART", "like/VERB", "the/DET", "old/ADJ", "red/ADJ", "car/NOUN", "./PUNCT"]
    assert expected == [f"{text}/{tag}" for text, tag in tags]


def test_a_forecast_goes_on_in_the_units_and_rhythm_of_the_series(shipped_http: httpx.Client) -> None:
    """Scaling the history scales the forecast, and a day of it is nearer to the curve than a constant would be."""
    values = demand(48 * 21 + 48)
    history, future = values[:-48], values[-48:]
    (result,) = post(shipped_http, "/v1/forecast", {"series": [{"values": history}]})
    (scaled,) = post(shipped_http, "/v1/forecast", {"series": [{"values": [value / 1000 for value in history]}]})
    mean = [row[0] for row in result["mean"]]

    assert 48 == len(mean)
    assert mean == pytest.approx([row[0] * 1000 for row in scaled["mean"]], rel=1e-4)
    level = sum(history) / len(history)
    error = sum(abs(a - b) for a, b in zip(mean, future, strict=True))
    assert error < sum(abs(level - value) for value in future)


def test_every_sample_is_answered_as_stated(shipped_http: httpx.Client) -> None:
    """What a package says of its samples is what a client gets."""
    for name, task in PACKAGES.items():
        for line in (MODELS / name / "1" / "samples.jsonl").read_text(encoding="utf-8").splitlines():
            sample = json.loads(line)
            key = "series" if task == "forecast" else "inputs"
            options = {option: sample[option] for option in ("horizon", "quantiles") if option in sample}
            (result,) = post(shipped_http, f"/v1/{task}", {key: [sample["input"]], "model": name} | options)
            if task == "sentiment":
                assert sample["output"]["scores"] == pytest.approx(result["scores"], abs=0.01)
            elif task == "tag":
                assert [t["tag"] for t in sample["output"]["tokens"]] == [t["tag"] for t in result["tokens"]]
            else:
                assert sample["output"]["mean"][0] == pytest.approx(result["mean"][0], rel=1e-3)


@pytest.mark.parametrize("name", ["sentiment-en", "sentiment-zh"])
def test_the_behaviour_suite_comes_out_as_the_card_says(shipped_http: httpx.Client, name: str) -> None:
    """Case by case through the API: the card tells how many readers would agree with, and most of them do."""
    cases = read_cases(RECIPES / f"{name}.behaviour.jsonl")
    texts = sorted({case.text * case.times for case in cases} | {case.same_as for case in cases if case.same_as})
    results = post(shipped_http, "/v1/sentiment", {"inputs": texts, "model": name})
    labels = dict(zip(texts, (result["label"] for result in results), strict=True))
    passed = sum(verdict.passed for verdict in judge(cases, labels.__getitem__).values())
    card = (MODELS / name / "1" / "README.md").read_text(encoding="utf-8")
    assert f"{passed} of {len(cases)} cases" in card
    assert passed >= 0.8 * len(cases)


@pytest.mark.parametrize(
    ("model", "text", "spans"),
    [
        ("ner-zh", "王小平从上海来到北京大学。", {"王小平": "PER", "上海": "LOC", "北京大学": "ORG"}),
        ("ner-en", "I met John in London", {"John": "person", "London": "location"}),
    ],
)
def test_entities_of_a_plain_sentence(shipped_http: httpx.Client, model: str, text: str, spans: dict[str, str]) -> None:
    """Names that stand where names stand, with the labels of the data."""
    (result,) = post(shipped_http, "/v1/tag", {"inputs": text, "model": model})
    assert spans == {span["text"]: span["label"] for span in result["spans"]}


def test_seven_columns_are_forecast_together(shipped_http: httpx.Client) -> None:
    """A week of hours ahead, each column in its own units: a column times a thousand is forecast times a thousand."""
    history = [[wave * size for size in (1, 2, 3, 5, 8, 13, 21)] for wave in demand(24 * 14)]
    larger = [[row[0] * 1000, *row[1:]] for row in history]
    results = post(
        shipped_http,
        "/v1/forecast",
        {"series": [{"values": history}, {"values": larger}], "model": "forecast-etth1", "horizon": 168},
    )
    plain, scaled = ([row[0] for row in result["mean"]] for result in results)
    assert ["HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT"] == results[0]["targets"]
    assert (168, 7) == (len(results[0]["mean"]), len(results[0]["mean"][0]))
    assert [value * 1000 for value in plain] == pytest.approx(scaled, rel=1e-3)
    assert [row[1:] for row in results[0]["mean"]] == [pytest.approx(row[1:]) for row in results[1]["mean"]]


def test_200_concurrent_mixed_requests_get_their_own_answers(
    shipped_server: ServerProcess, shipped_http: httpx.Client, shipped_rpc: Client
) -> None:
    """Both doors, three tasks, priorities and deadlines, some callers giving up: an answer is what one gets alone."""
    chance = random.Random(3)
    nouns = ["film", "story", "actor", "ending", "plot", "music", "camera", "voice"]
    texts = [
        f"The {chance.choice(nouns)} was {chance.choice(['good', 'bad', 'odd'])} " * chance.randint(1, 40)
        for _ in range(20)
    ]
    histories = [demand(chance.randint(1, 400)) for _ in range(5)]
    alone = {text: post(shipped_http, "/v1/sentiment", {"inputs": text})[0]["score"] for text in texts}
    tags = {text: [t["tag"] for t in post(shipped_http, "/v1/tag", {"inputs": text})[0]["tokens"]] for text in texts}
    means = [post(shipped_http, "/v1/forecast", {"series": [{"values": h}]})[0]["mean"][0][0] for h in histories]

    def one(number: int) -> str:
        text = texts[number % len(texts)]
        match number % 4:
            case 0:
                timeout = 0.001 if number % 3 == 0 else 60.0
                headers = {"X-Request-Priority": chance.choice(["high", "normal", "low"])}
                if number % 3 == 1:
                    headers["X-Request-Timeout"] = "0.02"
                url = f"{shipped_server.http}/v1/sentiment"
                try:
                    response = httpx.post(url, json={"inputs": text}, headers=headers, timeout=timeout, trust_env=False)
                except httpx.TimeoutException:
                    return "gave up"
                if response.status_code == 504:
                    return "late"
                (found,) = response.json()["results"]
                assert alone[text] == pytest.approx(found["score"], abs=1e-5)
            case 1:
                found = shipped_rpc.call("Sentiment", pb.SentimentRequest(inputs=[text, "", text])).results
                assert [alone[text]] * 2 == pytest.approx([found[0].score, found[2].score], abs=1e-5)
            case 2:
                found = shipped_rpc.call("Tag", pb.TagRequest(inputs=[text])).results[0]
                assert tags[text] == [token.tag for token in found.tokens]
            case 3:
                index = number % len(histories)
                request = pb.ForecastRequest(series=[pb.Series(values=histories[index])])
                found = shipped_rpc.call("Forecast", request).results[0]
                assert means[index] == pytest.approx(found.mean.values[0], rel=1e-5)
        return "answered"

    with concurrent.futures.ThreadPoolExecutor(200) as pool:
        outcomes = list(pool.map(one, range(200)))

    assert {"answered", "gave up", "late"} >= set(outcomes)
    assert all(outcomes[n] == "answered" for n in range(200) if n % 4 or n % 3 == 2)
