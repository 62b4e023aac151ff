"""Networks run here as the engine runs them on a CPU."""

from support.threads import one_computing_thread

__all__ = ["one_computing_thread"]
