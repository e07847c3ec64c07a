"""Processes forked from one that has imported the libraries: a start costs half of a fresh one.

They are processes like any others, with a log, signals and an end of their own.
"""

import contextlib
import multiprocessing
import os
import subprocess
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests.support import forked
from tests.support.processes import Running, environment, until_the_end

_context = multiprocessing.get_context("forkserver")
# All that the product imports and that asks for no settings.
_context.set_forkserver_preload(
    [
        "django.contrib.admin", "django.contrib.sessions.backends.db", "django.core.management",
        "django.db.backends.postgresql.psycopg_any", "django.db.backends.sqlite3.base",
        "django.forms", "django.template.loader_tags", "django.test", "django_htmx.middleware",
        "environ", "httpx", "msgspec", "psycopg", "starlette.applications", "structlog", "uvicorn",
        "uvloop", "whitenoise.middleware", "zoneinfo",
    ]
)  # fmt: skip


class Forked:
    """One of them, with what is used of `subprocess.Popen`."""

    def __init__(self, process: BaseProcess) -> None:
        self.process = process

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float) -> int | None:
        self.process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.process.name, timeout)
        return self.returncode

    def send_signal(self, number: int) -> None:
        assert self.process.pid
        os.kill(self.process.pid, number)


@contextlib.contextmanager
def start(module: str, *arguments: str, folder: Path, **given: str) -> Iterator[Running]:
    """Run a module as a command with these arguments until the block ends."""
    log = folder / f"{time.monotonic_ns()}.log"
    reader, writer = _context.Pipe(duplex=False)
    process = _context.Process(
        target=forked.run, args=(module, list(arguments), environment(**given), writer, log)
    )
    process.start()
    writer.close()
    with (
        reader,
        os.fdopen(os.dup(reader.fileno())) as stdout,
        until_the_end(Forked(process), stdout, log) as running,
    ):
        yield running
