"""Entry point of forked processes; imports nothing that reads settings, which are set later."""

import os
import runpy
import sys
from multiprocessing.connection import Connection
from pathlib import Path


def run(
    module: str, arguments: list[str], variables: dict[str, str], out: Connection, log: Path
) -> None:
    """Run a module as a command, with its own environment and standard streams."""
    os.environ.clear()
    os.environ.update(variables)
    sys.argv = [module, *arguments]
    os.dup2(out.fileno(), sys.stdout.fileno())
    out.close()
    with log.open("w") as errors:
        os.dup2(errors.fileno(), sys.stderr.fileno())
    runpy.run_module(module, run_name="__main__")
