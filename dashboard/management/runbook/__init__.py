"""Shared code of the commands for runbooks: `runs`, `run`, `abort` and `token`."""
