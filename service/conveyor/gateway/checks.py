"""What a request may hold, checked once for every door. Each failure names the field and what is accepted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from conveyor.domain import Series
from conveyor.errors import InvalidArgument
from conveyor.features.series import MAX_MAGNITUDE
from conveyor.features.time import check_span, same_frequency
from conveyor.gateway.limits import Limits
from conveyor.spec import ForecastSpec

__all__ = [
    "check_frequency",
    "check_horizon",
    "check_items",
    "check_levels",
    "check_observations",
    "check_series",
    "check_text",
    "check_texts",
    "check_tokens",
]


def check_items(count: int, field: str, limits: Limits) -> None:
    """One item at least, and no more than the limit."""
    if count == 0:
        raise InvalidArgument(f"{field} must not be empty; an empty text is accepted", field=field)
    if count > limits.items:
        raise InvalidArgument(f"{field} has {count} items; at most {limits.items} are accepted", field=field)


def check_text(text: str, field: str, limits: Limits) -> None:
    """Any Unicode text within the limit, without NUL and lone surrogates; empty is fine."""
    _check_length(len(text), field, limits)
    _check_characters(text, field)


def _check_length(length: int, field: str, limits: Limits) -> None:
    if length > limits.text_code_points:
        raise InvalidArgument(
            f"the text has {length} code points; at most {limits.text_code_points} are accepted", field=field
        )


def _check_characters(text: str, field: str) -> None:
    if "\0" in text:
        raise InvalidArgument(f"the text holds NUL (U+0000) at {text.index(chr(0))}; remove it", field=field)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgument(
            f"the text holds a lone surrogate at {error.start}; send well-formed Unicode", field=field
        ) from error


def check_texts(texts: Sequence[str], field: str, limits: Limits) -> None:
    """Each as `check_text`."""
    try:
        # All at once, since there may be thousands; one by one only to name the text at fault.
        _check_length(max(map(len, texts), default=0), field, limits)
        _check_characters("".join(texts), field)
    except InvalidArgument:
        for index, text in enumerate(texts):
            check_text(text, f"{field}[{index}]", limits)
        raise


def check_tokens(tokens: Sequence[str], field: str, limits: Limits) -> None:
    """Texts that are not empty and, joined by spaces, within the limit; no tokens at all is an empty text."""
    length = sum(map(len, tokens)) + max(0, len(tokens) - 1)
    if length > limits.text_code_points:
        raise InvalidArgument(
            f"the tokens joined by spaces have {length} code points; at most {limits.text_code_points} are accepted",
            field=field,
        )
    if "" in tokens:
        raise InvalidArgument("a token must not be empty", field=f"{field}[{list(tokens).index('')}]")
    try:
        # All at once, since there may be hundreds of thousands; one by one only to name the token at fault.
        check_text(" ".join(tokens), field, limits)
    except InvalidArgument:
        for index, token in enumerate(tokens):
            check_text(token, f"{field}[{index}]", limits)
        raise


def check_series(series: Series, spec: ForecastSpec, field: str, limits: Limits, horizon: int) -> None:
    """One step or more, of the model's features and frequency, finite or missing, each target observed once."""
    steps = len(series.values)
    if steps == 0:
        raise InvalidArgument("values must not be empty; one step or more is accepted", field=f"{field}.values")
    check_observations(series.values, spec, f"{field}.values", limits)
    for name in spec.series.targets:
        if np.isnan(series.values[:, spec.series.features.index(name)]).all():
            raise InvalidArgument(f"every value of {name} is missing; at least one is needed", field=f"{field}.values")
    check_frequency(series.frequency, spec, f"{field}.frequency")
    if series.start is not None:
        check_span(series.start, spec.series.frequency, steps + horizon - 1, field=f"{field}.start")


def check_observations(values: npt.NDArray[np.float64], spec: ForecastSpec, field: str, limits: Limits) -> None:
    """Any number of steps within the limit, of the model's features, finite or missing; float64 [steps, features]."""
    features = spec.series.features
    if values.size > limits.series_values:
        raise InvalidArgument(
            f"the series has {values.size} values; at most {limits.series_values} are accepted", field=field
        )
    if values.shape[1] != len(features):
        raise InvalidArgument(
            f"the model takes {len(features)} values a step ({', '.join(features)}); got {values.shape[1]}",
            field=field,
        )
    infinite = np.isinf(values).any(axis=1)
    if infinite.any():
        raise InvalidArgument(
            "values must be finite; a missing observation is null in JSON and NaN in protobuf",
            field=f"{field}[{int(infinite.argmax())}]",
        )
    too_large = (np.abs(values) > MAX_MAGNITUDE).any(axis=1)
    if too_large.any():
        raise InvalidArgument(
            f"values must lie within ±{MAX_MAGNITUDE:g}, so that their squares can be summed",
            field=f"{field}[{int(too_large.argmax())}]",
        )


def check_frequency(frequency: str | None, spec: ForecastSpec, field: str) -> None:
    """None, or the model's own, however it is written."""
    if frequency is not None and not same_frequency(frequency, spec.series.frequency, field=field):
        raise InvalidArgument(
            f"the model takes one value every {spec.series.frequency}; got {frequency!r}", field=field
        )


def check_horizon(horizon: int | None, spec: ForecastSpec) -> int:
    """The number of steps to forecast: the model's default, or 1 to its largest."""
    if horizon is None:
        return spec.default_horizon
    if not 1 <= horizon <= spec.horizon:
        raise InvalidArgument(f"horizon must be 1 to {spec.horizon} steps", field="horizon")
    return horizon


def check_levels(levels: Sequence[float] | None, spec: ForecastSpec, limits: Limits) -> Sequence[float]:
    """The quantile levels to answer: the trained ones, or any between the lowest and the highest of them, once each."""
    lowest, highest = spec.quantiles[0], spec.quantiles[-1]
    if levels is None:
        return spec.quantiles
    if not levels:
        raise InvalidArgument("quantiles must not be empty; leave it out for the trained levels", field="quantiles")
    if len(levels) > limits.quantile_levels:
        raise InvalidArgument(
            f"at most {limits.quantile_levels} quantile levels are accepted; got {len(levels)}", field="quantiles"
        )
    for index, level in enumerate(levels):
        if not lowest <= level <= highest:
            raise InvalidArgument(
                f"quantile levels must lie between the trained ones, {lowest} to {highest}; got {level}",
                field=f"quantiles[{index}]",
            )
        if level in levels[:index]:
            raise InvalidArgument(f"the level {level} is given twice", field=f"quantiles[{index}]")
    return levels
