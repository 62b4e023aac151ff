"""Reading samples, and comparing what came out with what must."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conveyor.errors import PackageError
from conveyor.repository.samples import Sample, difference, read_samples
from conveyor.spec import ForecastSpec, PackageSpec, RecurrentSpec, SeriesSpec

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=12,
)


@pytest.fixture
def forecast_spec() -> ForecastSpec:
    return ForecastSpec(
        format_version=1,
        name="load",
        description="Next hours of a load.",
        license="Apache-2.0",
        recurrent=RecurrentSpec(hidden=4),
        task="forecast",
        series=SeriesSpec(features=("kw",), targets=("kw",), frequency="h", half_life_steps=24),
        horizon=12,
        default_horizon=6,
        quantiles=(0.1, 0.9),
        history=48,
    )


def _problems(path: Path, text: str, spec: PackageSpec | None) -> list[str]:
    path.write_text(text, encoding="utf-8")
    with pytest.raises(PackageError) as refusal:
        read_samples(path, spec)
    return [str(problem) for problem in refusal.value.problems]


def test_reads_a_forecast_sample(tmp_path: Path, forecast_spec: ForecastSpec) -> None:
    """Horizon and levels are read beside input and output; a last line without a newline counts."""
    path = tmp_path / "samples.jsonl"
    path.write_text(
        '{"input": {"values": [1, null]}, "output": {"mean": [1.5]}}\n'
        '{"input": {"values": [2]}, "horizon": 3, "quantiles": [0.5], "output": {}}',
        encoding="utf-8",
    )
    expected = (
        Sample(1, {"values": [1, None]}, None, None, {"mean": [1.5]}),
        Sample(2, {"values": [2]}, 3, (0.5,), {}),
    )
    assert expected == read_samples(path, forecast_spec)


def test_separators_inside_strings_do_not_end_a_line(tmp_path: Path, spec: PackageSpec) -> None:
    """Only a newline ends a line, not the other line separators of Unicode."""
    path = tmp_path / "samples.jsonl"
    path.write_text('{"input": "one\u2028two\u0085three", "output": {}}\n', encoding="utf-8")
    assert [sample.input for sample in read_samples(path, spec)] == ["one\u2028two\u0085three"]


def test_problems_are_named_by_line(tmp_path: Path, spec: PackageSpec) -> None:
    """Each wrong line is named, and the right ones between them are not."""
    text = '{"input": "fine", "output": {}}\nnot json\n[1]\n{"input": 3, "output": 4, "label": 5}\n{}\n\n'
    found = _problems(tmp_path / "samples.jsonl", text, spec)
    assert found[0] == "samples.jsonl: line 2: is not a JSON object: Expecting value: line 1 column 1 (char 0)"
    assert found[1:7] == [
        "samples.jsonl: line 3: is not a JSON object: it is of type list",
        "samples.jsonl: line 4.label: is an unknown key; accepted are input, output",
        "samples.jsonl: line 4.output: should be a result object",
        "samples.jsonl: line 4.input: should be a text",
        "samples.jsonl: line 5.input: is missing",
        "samples.jsonl: line 5.output: is missing",
    ]
    assert found[7].startswith("samples.jsonl: line 6: is not a JSON object")


@pytest.mark.parametrize(
    "value", ["NaN", "Infinity", "1e999", '"\\ud800"', "9" * 5_000, "[" * 100_000], ids=lambda value: value[:9]
)
def test_refuses_what_is_no_value(tmp_path: Path, value: str) -> None:
    """Numbers that are not finite, lone surrogates and absurd lines are problems of their line."""
    (found,) = _problems(tmp_path / "samples.jsonl", f'{{"input": {value}, "output": {{}}}}\n', None)
    assert found.startswith("samples.jsonl: line 1: is not a JSON object: ")


@pytest.mark.parametrize("text", ["", "\n"], ids=["empty", "blank"])
def test_at_least_one_sample(tmp_path: Path, spec: PackageSpec, text: str) -> None:
    """A file without a sample is refused."""
    assert _problems(tmp_path / "samples.jsonl", text, spec)


def test_too_large(tmp_path: Path, spec: PackageSpec) -> None:
    """A file over the limit is refused before it is parsed."""
    found = _problems(tmp_path / "samples.jsonl", " " * (16 * 2**20 + 1), spec)
    assert found == ["samples.jsonl: is too large, at most 16777216 bytes are accepted"]


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ('"horizon": 13', "line 1.horizon: should be an integer from 1 to 12"),
        ('"horizon": true', "line 1.horizon: should be an integer from 1 to 12"),
        ('"quantiles": [1]', "line 1.quantiles: should be an array of numbers between 0 and 1"),
        ('"quantiles": 0.5', "line 1.quantiles: should be an array of numbers between 0 and 1"),
    ],
)
def test_forecast_fields(tmp_path: Path, forecast_spec: ForecastSpec, extra: str, expected: str) -> None:
    """Horizon and levels outside what the package can give are refused."""
    text = f'{{"input": {{"values": [1]}}, "output": {{}}, {extra}}}\n'
    assert [f"samples.jsonl: {expected}"] == _problems(tmp_path / "samples.jsonl", text, forecast_spec)


@given(value=JSON)
def test_a_value_does_not_differ_from_itself(value: object) -> None:
    """No difference is found between a JSON value and itself, even with no tolerance."""
    assert difference(value, value, 0.0) is None


@pytest.mark.parametrize(
    ("expected", "actual", "sentence"),
    [
        (
            {"scores": {"positive": 0.98}},
            {"scores": {"positive": 0.75}},
            "scores.positive: expected 0.98, got 0.75 (tolerance 0.0001)",
        ),
        ({"label": "positive"}, {"label": "negative"}, "label: expected 'positive', got 'negative'"),
        ({"tokens": [{"tag": "B"}]}, {"tokens": [{"tag": "I"}]}, "tokens[0].tag: expected 'B', got 'I'"),
        ({"quantiles": {"0.1": [1.0]}}, {"quantiles": {"0.1": []}}, 'quantiles."0.1": expected 1 items, got 0'),
        ({"a": 1}, {}, "a: is missing"),
        ({}, {"a": 1}, "a: was not expected"),
        ({"end": 100_000}, {"end": 100_001}, "end: expected 100000, got 100001"),
        (0.5, float("nan"), "result: expected 0.5, got nan (tolerance 0.0001)"),
        (1, True, "result: expected 1, got True"),
        (None, 0.0, "result: expected None, got 0.0"),
        ([], {}, "result: expected an array, got an object"),
    ],
)
def test_names_the_first_difference(expected: object, actual: object, sentence: str) -> None:
    """The sentence says where, what was expected, and what came."""
    assert sentence == difference(expected, actual, 1e-4)


@pytest.mark.parametrize(
    ("expected", "actual", "agrees"),
    [
        (0.5, 0.50009, True),
        (0.5, 0.50011, False),
        (0.0, 0.00009, True),
        (-2000.0, -2000.19, True),
        (-2000.0, -2000.21, False),
        (2, 2.0001, True),
        ((1.0, 2.0), [1.0, 2.0], True),
    ],
)
def test_tolerance(expected: object, actual: object, agrees: bool) -> None:
    """The tolerance is absolute up to a magnitude of 1 and relative above."""
    assert agrees == (difference(expected, actual, 1e-4) is None)
