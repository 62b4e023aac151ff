"""Conveyor: a server for LSTM models."""
