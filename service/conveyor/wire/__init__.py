"""What passes between front ends and engines: messages and the port."""
