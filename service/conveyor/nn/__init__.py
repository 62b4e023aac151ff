"""Recurrent networks in torch; knows nothing of serving."""
