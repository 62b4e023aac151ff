"""Conveyor beside the servers a user would otherwise run: same package, same texts, same machine."""
