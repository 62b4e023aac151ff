"""From start to drain: states and signals."""
