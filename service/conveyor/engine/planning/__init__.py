"""Choosing, by measurement, how a model is executed on a kind of device."""
