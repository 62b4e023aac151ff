"""How much may be computed at once on a device whose memory others use too. Pure."""

from __future__ import annotations

__all__ = ["StepBudget"]

# After a halving, some forty good executions bring the budget back.
_GROWTH = 1.02


class StepBudget:
    """Padded steps of a batch: halved when memory ran out, growing back slowly, never above the limit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._steps = float(limit)

    @property
    def steps(self) -> int:
        """The budget now, one at least."""
        return max(int(self._steps), 1)

    def halve(self, attempted: int) -> None:
        """Memory ran out on so many steps."""
        self._steps = max(min(self._steps, attempted) / 2, 1.0)

    def grow(self) -> None:
        """An execution went well."""
        self._steps = min(self._steps * _GROWTH, float(self._limit))
