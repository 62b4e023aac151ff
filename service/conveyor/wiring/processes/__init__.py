"""The server in several processes: one that owns the sockets and watches, front ends, engines."""
