"""Streaming sessions in the engine: which there are, where their states lie, and what runs next."""
