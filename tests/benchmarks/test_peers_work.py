"""What the servers are asked, and how their answers are read."""

from __future__ import annotations

import json
import struct
from collections import Counter
from pathlib import Path

import pytest
from peers import oip
from peers.measure import WrongAnswers, best_settings, difference
from peers.servers import Setting
from peers.work import draw_texts, http_request, read_file, write_file

WORDS = [f"w{rank}" for rank in range(1000)]


def test_words_follow_zipfs_law_and_texts_the_lengths_that_were_counted() -> None:
    """Frequency falls as one over the shifted rank; lengths that never occurred are not drawn."""
    texts = draw_texts(WORDS, [5, 0, 30, 0, 70], 4000, seed=1)
    lengths = Counter(len(text.split()) for text in texts)
    assert {2, 4} == set(lengths)
    assert 0.3 == pytest.approx(lengths[2] / len(texts), abs=0.03)
    words = Counter(word for text in texts for word in text.split())
    assert (100 + 2.7) / 2.7 == pytest.approx(words["w0"] / words["w100"], rel=0.5)
    assert words["w0"] > words["w10"] > words["w100"]


def test_the_same_seed_gives_the_same_texts() -> None:
    """And another one others."""
    counts = [0, 1, 2, 3]
    assert draw_texts(WORDS, counts, 50, seed=1) == draw_texts(WORDS, counts, 50, seed=1)
    assert draw_texts(WORDS, counts, 50, seed=1) != draw_texts(WORDS, counts, 50, seed=2)


def test_requests_come_out_of_their_file_as_they_went_in(tmp_path: Path) -> None:
    """Whatever bytes they hold."""
    requests = [http_request(80, "/", b"\n\r\n\x00", {"X-A": "b"}), b"", b"00000004"]
    write_file(requests, tmp_path / "requests")
    assert requests == read_file(tmp_path / "requests")


def test_a_request_has_one_of_each_header() -> None:
    """A peer's own content type takes the place of the usual one."""
    request = http_request(8000, "/v2", b"four", {"Content-Type": "application/octet-stream"})
    assert b"POST /v2 HTTP/1.1\r\n" == request[:19]
    assert 1 == request.count(b"Content-Type")
    assert request.endswith(b"Content-Length: 4\r\n\r\nfour")


def test_a_text_travels_in_three_forms_of_the_open_inference_protocol() -> None:
    """JSON, JSON with the text behind it, and a message in which it stands raw or in the tensor."""
    text = "schön, “wahr”"
    assert [text] == json.loads(oip.json_request(text))["inputs"][0]["data"]
    body, headers = oip.binary_request(text)
    size = int(headers["Inference-Header-Content-Length"])
    assert len(body) - size == json.loads(body[:size])["inputs"][0]["parameters"]["binary_data_size"]
    assert struct.pack("<I", len(text.encode())) + text.encode() == body[size:]
    for raw in (True, False):
        assert text.encode() in oip.message(text, "sentiment", raw=raw)


def test_answers_are_read_raw_or_from_their_tensors() -> None:
    """As Triton and MLServer write them."""

    def part(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2, len(content)]) + content

    label, score = part(1, b"label"), part(1, b"score")
    raw = part(1, b"m") + part(5, label) + part(5, score)
    raw += part(6, struct.pack("<I", 8) + b"positive") + part(6, struct.pack("<f", 0.75))
    assert ("positive", 0.75) == oip.read_message(raw)
    inside = part(5, label + part(5, part(8, b"positive"))) + part(5, score + part(5, part(7, struct.pack("<d", 0.1))))
    assert ("positive", 0.1) == oip.read_message(inside)


def test_an_answer_may_differ_within_the_tolerance_only() -> None:
    """In the score, and in the label where both labels are within it."""
    right = [("positive", 0.9), ("negative", 0.5004)]
    assert 0.0009 == pytest.approx(difference([("positive", 0.9009), ("positive", 0.5)], right, 1e-3))
    for wrong in ([("positive", 0.902), right[1]], [("negative", 0.9), right[1]], [right[0], ("positive", 0.502)]):
        with pytest.raises(WrongAnswers):
            difference(wrong, right, 1e-3)


def test_each_measure_has_the_setting_that_is_best_for_it() -> None:
    """The least median at one connection, the highest rate at many; points that failed do not count."""

    def point(delay_ms: float, p50_ms: float, rate: float) -> dict[str, object]:
        figures = {"http_c1": {"p50_ms": p50_ms, "requests_per_s": 1.0}, "http_c128": {"requests_per_s": rate}}
        return {"setting": {"delay_ms": delay_ms, "workers": 1, "form": "json"}, "figures": figures}

    points = [point(0, 1.0, 100.0), point(2, 3.0, 200.0), {"setting": {}, "error": "no"}]
    best = best_settings(points, ["http_c1", "http_c128"])
    assert {"http_c1": Setting(0), "http_c128": Setting(2)} == best
