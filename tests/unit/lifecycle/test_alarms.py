"""Many moments, one timer."""

from __future__ import annotations

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conveyor.lifecycle.alarms import Alarms
from conveyor.simulation import virtual_time

SECONDS = st.integers(0, 20).map(float)


@given(
    st.lists(
        st.tuples(SECONDS, SECONDS | st.just(math.inf), SECONDS | st.just(math.inf)),
        min_size=1,
        max_size=20,
    )
)
def test_each_key_rings_once_at_its_moment_unless_it_is_taken_back(keys: list[tuple[float, float, float]]) -> None:
    """Whatever others are set and taken back meanwhile; a key that is never due never rings.

    keys: when each is set, how long after that it is due, and how long after that it is taken back.
    """
    rung: dict[int, float] = {}

    async def play() -> None:
        loop = asyncio.get_running_loop()

        def ring(key: int) -> None:
            assert key not in rung
            rung[key] = loop.time()

        alarms: Alarms[int] = Alarms(ring, loop.time)
        for key, (begin, after, back) in enumerate(keys):
            loop.call_at(begin, alarms.set, key, begin + after)
            if back < math.inf and back != after:
                loop.call_at(begin + back, alarms.unset, key)
        await asyncio.sleep(50.0)
        assert {key for key, (_, after, back) in enumerate(keys) if after == back == math.inf} <= set(alarms)

    virtual_time.run(play())
    expected = {
        key: begin + after for key, (begin, after, back) in enumerate(keys) if after < math.inf and not back < after
    }
    assert expected == pytest.approx(rung)
