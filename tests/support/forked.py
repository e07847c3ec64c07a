"""What a forked process does first; it imports nothing that asks for settings, which come later."""

import os
import runpy
import sys
from multiprocessing.connection import Connection
from pathlib import Path


def run(
    module: str, arguments: list[str], variables: dict[str, str], out: Connection, log: Path
) -> None:
    """Run a module as a command, in another environment and with streams of its own."""
    os.environ.clear()
    os.environ.update(variables)
    sys.argv = [module, *arguments]
    os.dup2(out.fileno(), sys.stdout.fileno())
    out.close()
    with log.open("w") as errors:
        os.dup2(errors.fileno(), sys.stderr.fileno())
    runpy.run_module(module, run_name="__main__")
