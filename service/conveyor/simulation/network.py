"""Delays of messages between the front end and the engine."""

from __future__ import annotations

import random

__all__ = ["Network"]


class Network:
    """Draws when each message arrives.

    Args:
        chance: Where delays are drawn from, evenly from 0 to `longest_s`.
        ordered: Whether a message waits for those sent before it; otherwise it may overtake them.
    """

    def __init__(self, chance: random.Random, longest_s: float, *, ordered: bool) -> None:
        self.longest_s = longest_s
        self._chance = chance
        self._ordered = ordered
        self._last: dict[bool, float] = {}

    def arrival(self, sent: float, *, to_engine: bool) -> float:
        """When a message sent at some time arrives."""
        arrival = sent + self._chance.random() * self.longest_s
        if self._ordered:
            arrival = max(arrival, self._last.get(to_engine, 0.0))
            self._last[to_engine] = arrival
        return arrival
