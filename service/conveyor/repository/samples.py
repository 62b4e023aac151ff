"""`samples.jsonl`: inputs of a package with the outputs they must give, and the comparison of the two."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeGuard

from conveyor.errors import PackageError, Problem
from conveyor.repository.files import read_text
from conveyor.repository.notation import dotted
from conveyor.spec import ForecastSpec, PackageSpec, SentimentSpec

__all__ = ["SAMPLES_LIMIT_BYTES", "Sample", "difference", "read_samples"]

SAMPLES_LIMIT_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of `samples.jsonl`.

    line: where it stands, from 1.
    input: one item of `inputs` or `series`, as in the HTTP body.
    horizon, quantiles: what the request asks for besides, of a forecaster only; None where it does not.
    output: the result object, as in the HTTP answer.
    """

    line: int
    input: object
    horizon: int | None
    quantiles: tuple[float, ...] | None
    output: Mapping[str, object]


def read_samples(path: Path, spec: PackageSpec | None) -> tuple[Sample, ...]:
    """Reads the samples in order. Without a `spec` what depends on the task is not checked.

    Raises:
        PackageError: With every problem by line (`line 3`, `line 3.horizon`), or because there is no sample.
    """
    lines = read_text(path, SAMPLES_LIMIT_BYTES).split("\n")
    if lines[-1] == "":
        lines.pop()
    samples: list[Sample] = []
    problems: list[Problem] = []
    for number, text in enumerate(lines, start=1):
        try:
            entry = _parse(text)
        except ValueError as error:
            problems.append(Problem(path.name, f"line {number}", f"is not a JSON object: {error}"))
            continue
        wrong = [Problem(path.name, f"line {number}.{key}", message) for key, message in _check(entry, spec)]
        problems += wrong
        if not wrong:
            quantiles = entry.get("quantiles")
            levels = None if quantiles is None else tuple(float(level) for level in quantiles)
            samples.append(Sample(number, entry["input"], entry.get("horizon"), levels, entry["output"]))
    if not lines:
        problems.append(Problem(path.name, "", "holds no sample, at least one is required"))
    if problems:
        raise PackageError(problems)
    return tuple(samples)


def difference(expected: object, actual: object, tolerance: float) -> str | None:
    """Says in one sentence where two JSON values first differ, or None if they agree.

    Strings, truth values, keys, lengths and pairs of integers must be equal. Other numbers may differ by `tolerance`:
    absolutely where the expected one is at most 1 in magnitude, relative to it above.
    """
    for path, found in _differences(expected, actual, tolerance, ()):
        return f"{dotted(path) or 'result'}: {found}"
    return None


def _differences(
    expected: object, actual: object, tolerance: float, path: tuple[str | int, ...]
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(expected, Mapping) and isinstance(actual, Mapping):
        for key in expected:
            if key not in actual:
                yield (*path, key), "is missing"
            else:
                yield from _differences(expected[key], actual[key], tolerance, (*path, key))
        for key in actual:
            if key not in expected:
                yield (*path, key), "was not expected"
    elif _is_array(expected) and _is_array(actual):
        if len(expected) != len(actual):
            yield path, f"expected {len(expected)} items, got {len(actual)}"
        for index, (left, right) in enumerate(zip(expected, actual, strict=False)):
            yield from _differences(left, right, tolerance, (*path, index))
    elif _is_number(expected) and _is_number(actual):
        exact = isinstance(expected, int) and isinstance(actual, int)
        # Written so that a NaN, which compares false with everything, is a difference.
        if not (expected == actual if exact else abs(expected - actual) <= tolerance * max(1.0, abs(expected))):
            yield path, f"expected {expected}, got {actual}" + ("" if exact else f" (tolerance {tolerance})")
    elif type(expected) is not type(actual) or expected != actual:
        yield path, f"expected {_shown(expected)}, got {_shown(actual)}"


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_array(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return "an object"
    return "an array" if _is_array(value) else repr(value)


def _parse(line: str) -> dict[str, Any]:
    """One JSON object.

    Raises:
        ValueError: It is anything else.
    """
    try:
        entry = json.loads(line, parse_constant=_refuse_constant, parse_float=_finite)
        # A lone surrogate can be written in JSON but is no text, and cannot be sent to any server.
        json.dumps(entry, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("it holds a lone surrogate") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(entry, dict):
        raise ValueError(f"it is of type {type(entry).__name__}")
    return entry


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too large for a number")
    return number


def _check(entry: Mapping[str, Any], spec: PackageSpec | None) -> Iterator[tuple[str, str]]:
    """What is wrong with a line, as keys and messages."""
    accepted = ["input", "output"]
    if spec is None or isinstance(spec, ForecastSpec):
        accepted += ["horizon", "quantiles"]
    for key in entry:
        if key not in accepted:
            yield key, f"is an unknown key; accepted are {', '.join(accepted)}"
    for key in ("input", "output"):
        if key not in entry:
            yield key, "is missing"
    if "output" in entry and not isinstance(entry["output"], dict):
        yield "output", "should be a result object"
    if spec is not None and "input" in entry:
        kind, fits = _input_kind(spec, entry["input"])
        if not fits:
            yield "input", f"should be {kind}"
    if isinstance(spec, ForecastSpec):
        horizon = entry.get("horizon", 1)
        if type(horizon) is not int or not 1 <= horizon <= spec.horizon:
            yield "horizon", f"should be an integer from 1 to {spec.horizon}"
        levels = entry.get("quantiles", [0.5])
        if not isinstance(levels, list) or not all(_is_number(level) and 0 < level < 1 for level in levels):
            yield "quantiles", "should be an array of numbers between 0 and 1"


def _input_kind(spec: PackageSpec, value: object) -> tuple[str, bool]:
    if isinstance(spec, SentimentSpec):
        return "a text", isinstance(value, str)
    if isinstance(spec, ForecastSpec):
        return "an object with 'values'", isinstance(value, dict) and "values" in value
    tokens = isinstance(value, list) and all(isinstance(token, str) for token in value)
    return "a text or an array of tokens", tokens or isinstance(value, str)
