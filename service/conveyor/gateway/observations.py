"""Observations as the doors read them, before it is known how wide a step of their session's model is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from conveyor.errors import InvalidArgument

__all__ = ["Appends", "Observations"]


@dataclass(frozen=True, slots=True, eq=False)
class Observations:
    """Steps one after another.

    values: float64 [steps * width], NaN where missing.
    width: values a step as the caller has them; None where the protocol does not say, which is the model's.
    """

    values: npt.NDArray[np.float64]
    width: int | None

    def steps(self, features: int, name: str) -> npt.NDArray[np.float64]:
        """float64 [steps, width], `features` wide unless the caller said otherwise, or there is no step at all.

        Args:
            name: The field that holds them.

        Raises:
            InvalidArgument: They are not whole steps.
        """
        width = features if self.width is None or not self.values.size else self.width
        if self.values.size % width:
            raise InvalidArgument(
                f"{self.values.size} values are no whole number of steps of {width} values", field=name
            )
        return self.values.reshape(-1, width)


@dataclass(frozen=True, slots=True, eq=False)
class Appends:
    """What one call appends to many sessions, as columns; entry i of each is item i.

    values: float64 [sum(sizes)], those of all items one after another, NaN where missing.
    sizes: values of each item.
    widths: as `Observations.width`; one for all items or one for each.
    expected: steps that the session should have before; None where the caller does not say.
    faults: what is wrong with items that could not be read; they have no values.
    """

    sessions: list[str]
    values: npt.NDArray[np.float64]
    sizes: list[int]
    widths: int | Sequence[int | None] | None
    expected: Sequence[int | None]
    faults: Mapping[int, InvalidArgument] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.sessions)

    def width_of(self, item: int) -> int | None:
        """The width of an item's steps, as far as the caller has said."""
        return self.widths[item] if isinstance(self.widths, Sequence) else self.widths
