"""What the commands for runbooks have in common: `runs`, `run`, `abort` and `token`."""
