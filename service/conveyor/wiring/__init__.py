"""The only place that puts concrete classes together."""
