"""Readers: one function for each file format, from a path to typed examples. Nothing is downloaded."""
