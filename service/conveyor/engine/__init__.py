"""The engine: backlog, policy, batches, executors, and the one thread that owns a device."""
