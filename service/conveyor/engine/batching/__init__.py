"""Backlog and policy: pure code, no torch, no clock, no asyncio."""
