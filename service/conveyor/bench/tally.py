"""What happened to the requests of one phase."""

from __future__ import annotations

import math
from collections import Counter

from conveyor.bench.client import Answer
from conveyor.bench.latency import Latencies
from conveyor.errors import Code

__all__ = ["OVERFLOW", "UNFINISHED", "Tally"]

OVERFLOW = Answer("CLIENT_OVERFLOW", "as many requests as may be in flight were already")
UNFINISHED = Answer("CLIENT_UNFINISHED", "no answer came until the end of the measurement")


class Tally:
    """Counts. Every arrival ends in exactly one outcome: an answer, or an error with its code."""

    def __init__(self, deadline_s: float | None) -> None:
        self._deadline_s = math.inf if deadline_s is None else deadline_s
        self.latencies = Latencies()
        self.lags = Latencies()
        self.answered = 0
        self.in_time = 0
        self.errors: Counter[str] = Counter()
        self.examples: dict[str, str] = {}
        # Monotonic seconds: of the first moment a request could be due, and of the last answer.
        self.began = math.inf
        self.last_answer = -math.inf

    def sent(self, lag_s: float) -> None:
        """Notes how much later than intended a request left."""
        self.lags.record(lag_s)

    def ended(self, answer: Answer, arrived: float, now: float) -> None:
        """Counts the end of a request that should have left at `arrived`, both monotonic seconds."""
        if answer.code != Code.OK:
            self.errors[answer.code] += 1
            self.examples.setdefault(answer.code, answer.message)
            return
        self.answered += 1
        self.in_time += now - arrived <= self._deadline_s
        self.latencies.record(now - arrived)
        self.last_answer = now

    @property
    def arrivals(self) -> int:
        """Requests that ended, or were never sent."""
        return self.answered + self.errors.total()
