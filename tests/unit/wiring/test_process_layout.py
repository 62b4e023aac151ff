"""How many processes of each kind there are, by default and as told."""

from __future__ import annotations

import pytest

from conveyor.settings import ServeSettings
from conveyor.wiring.layout import Layout


@pytest.mark.parametrize(
    ("told", "cores", "has_cuda", "layout"),
    [
        ({}, 1, False, Layout(0, 0, 1)),
        ({}, 2, False, Layout(2, 1, 1)),
        ({}, 4, False, Layout(4, 2, 2)),
        ({}, 64, False, Layout(8, 8, 8)),
        ({}, 16, True, Layout(8, 8, 1)),
        ({"frontends": 0}, 16, True, Layout(0, 0, 1)),
        ({"frontends": 4}, 2, False, Layout(4, 1, 1)),
        ({"engines": 3}, 2, False, Layout(2, 2, 3)),
        ({"http_frontends": 2}, 2, False, Layout(2, 2, 1)),
        ({"http_frontends": 3}, 2, False, Layout(3, 3, 1)),
        ({"http_frontends": 1}, 1, False, Layout(1, 1, 1)),
        ({"http_frontends": 1}, 16, True, Layout(8, 1, 1)),
    ],
)
def test_what_is_not_told_follows_the_cores_and_the_device(
    told: dict[str, int], cores: int, has_cuda: bool, layout: Layout
) -> None:
    """HTTP needs a front end for each engine on the CPU, and all of them before a CUDA device."""
    assert layout == Layout.of(ServeSettings(**told), cores, has_cuda=has_cuda)
