"""The serving path on a fake clock: real front end, backlog, policy and engine; made-up device and network."""
