"""The share of the engine's speed that is served."""

from __future__ import annotations

from served_share import raw_rate


def test_the_raw_rate_is_that_of_answers() -> None:
    """The engine alone answers all texts, again and again, by the plan of the package."""
    figures = raw_rate(["a fine film", "dull", ""], seconds=0.05)

    assert figures["texts_per_s"] > 0
    assert len(figures["plan"].split()) == 2
