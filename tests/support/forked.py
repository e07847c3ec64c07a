"""Entry points of forked processes; imports nothing that reads settings, which are set later."""

import multiprocessing
import os
import runpy
import sys
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import recv_handle
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


def fork_on_request(variables: dict[str, str], requests: Connection) -> None:
    """Import the product with these settings, then fork for each request until the connection ends.

    A request is the arguments of `run`, with its output sent after them. The answers are each
    process's id, and later its id and exit code.
    """
    os.environ.clear()
    os.environ.update(variables)
    import django

    django.setup()
    # What a process imports by its first answers.
    import dashboard.asgi
    import dashboard.management.commands.serve
    import dashboard.urls  # noqa: F401

    processes: dict[object, BaseProcess] = {}
    while True:
        for ready in wait([requests, *processes]):
            if ready is not requests:
                process = processes.pop(ready)
                process.join()
                requests.send((process.pid, process.exitcode))
                continue
            try:
                module, arguments, environment, log = requests.recv()
            except EOFError:
                return
            out = Connection(recv_handle(requests), readable=False)
            started = multiprocessing.get_context("fork").Process(
                target=run, args=(module, arguments, environment, out, log)
            )
            started.start()
            out.close()
            processes[started.sentinel] = started
            requests.send((started.pid, None))
