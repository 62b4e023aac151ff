"""Many series encoded step by step are encoded as each by itself."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from conveyor.errors import InvalidArgument
from conveyor.features.series import SeriesEncoder
from conveyor.features.streams import NO_START, Scaling, StreamEncoder, format_start, read_start
from conveyor.spec import SeriesSpec

SPECS = [
    SeriesSpec(
        features=("load", "heat"),
        targets=("heat",),
        frequency=frequency,
        calendar=("time_of_day", "day_of_week", "day_of_year"),
        half_life_steps=5,
    )
    for frequency in ("30min", "MS")
]
STARTS = ["", "2024-03-01T00:00:00+00:00", "1999-12-31T23:17:05.000001+05:30", "0050-01-01T00:00:00-02:00"]

_number = st.floats(-1e9, 1e9) | st.just(float("nan")) | st.just(3.0)


@given(st.data())
def test_many_series_are_encoded_bit_for_bit_as_each_alone(data: st.DataObject) -> None:
    """Whatever their number, where each of them stands, how its steps are cut, and with a start or without."""
    spec = data.draw(st.sampled_from(SPECS))
    alone, together = SeriesEncoder(spec), StreamEncoder(spec)
    count = data.draw(st.integers(1, 20))
    cuts = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    values = data.draw(hnp.arrays(np.float64, (count, sum(cuts), 2), elements=_number))
    starts = data.draw(
        st.lists(st.sampled_from(STARTS if spec is SPECS[0] else STARTS[:2]), min_size=count, max_size=count)
    )
    states = [alone.initial_state() for _ in starts]
    zeros = np.zeros((count, 2))
    scaling, steps = Scaling(zeros, zeros, zeros), np.zeros(count, np.int64)
    starts_us = np.array([read_start(start)[0] if start else NO_START for start in starts])
    first = 0
    for cut in cuts:
        piece = values[:, first : first + cut]
        found = together.advance(scaling, steps, piece, starts_us)
        scaling, steps, first = found.scaling, steps + cut, first + cut
        loc, scale = together.units(scaling)
        for row, start in enumerate(starts):
            expected, states[row] = alone.advance(
                states[row], piece[row], datetime.fromisoformat(start) if start else None
            )
            assert expected.inputs.tobytes() == found.inputs[row].tobytes()
            assert (expected.loc[-1].tobytes(), expected.scale[-1].tobytes()) == (
                loc[row].tobytes(),
                scale[row].tobytes(),
            )
            for name in ("mean", "variance", "weight"):
                assert getattr(states[row], name).tobytes() == getattr(scaling, name)[row].tobytes()
    seen = ~np.isnan(values[:, :, 1]).all(axis=1)
    assert seen.tolist() == together.knows_targets(scaling).tolist()
    assert seen[0] == together.knows_targets_after(zeros[0], values[0])
    assert together.knows_targets_after(np.ones(2), values[0][:0])


@pytest.mark.parametrize("start", STARTS[1:])
def test_a_start_comes_back_as_it_was(start: str) -> None:
    """With its offset, to the microsecond."""
    assert start == format_start(*read_start(start))


def test_a_start_that_is_no_time_is_refused() -> None:
    """Instead of being taken for unknown."""
    with pytest.raises(InvalidArgument):
        read_start("yesterday")


@pytest.mark.parametrize("spec", SPECS)
def test_a_series_that_runs_out_of_the_calendar_is_found(spec: SeriesSpec) -> None:
    """Before its step is computed; one without a start has no times to run out of."""
    start_us, offset_us = read_start("9999-12-31T23:00:00+00:00")
    starts, offsets = np.array([start_us, start_us, NO_START]), np.array([offset_us] * 3)
    too_far = StreamEncoder(spec).reaches_too_far(starts, offsets, np.array([0, 2, 2]))
    assert [False, True, False] == too_far.tolist()
