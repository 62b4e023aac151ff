"""What one request may ask for."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that hold on every door.

    body_bytes: size of a request's body or message.
    items: inputs or series in one request.
    text_code_points: length of one text; of given tokens, joined by spaces.
    series_values: observations of one series, over all features.
    quantile_levels: levels asked of a forecast.
    request_timeout_s: how long a request may take whose caller set no deadline, so that none waits for ever.
    """

    body_bytes: int = 8 * 2**20
    items: int = 1024
    text_code_points: int = 1_000_000
    series_values: int = 100_000
    quantile_levels: int = 100
    request_timeout_s: float = 300.0
