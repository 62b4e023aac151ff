"""Use cases: what sentiment, tag and forecast mean, written once for every door."""
