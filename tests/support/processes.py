"""Real processes of `manage.py`, and a sandbox in this process that they can all reach."""

import contextlib
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import send_handle
from pathlib import Path
from typing import IO, Protocol

import httpx
from django.conf import settings

from dashboard import sandbox
from tests.settings import NAMES
from tests.support import evidence, forked, live
from tests.support.asgi_servers import Server, serve_in_thread

WAIT_TIMEOUT = 30  # seconds for a process to start on a busy machine


_context = multiprocessing.get_context("forkserver")
# All imports of the product that need no settings.
_context.set_forkserver_preload(
    [
        "django.contrib.sessions.backends.db", "django.core.management",
        "django.db.backends.postgresql.psycopg_any", "django.db.backends.sqlite3.base",
        "django.forms", "django.template.loader_tags", "django.test", "django_htmx.middleware",
        "environ", "httpx", "msgspec", "psycopg", "starlette.requests", "structlog", "uvicorn",
        "uvloop", "whitenoise.middleware", "zoneinfo",
    ]
)  # fmt: skip


def environment(**variables: str) -> dict[str, str]:
    """Return a process's environment, without the settings of this process or of a `.env` file."""
    # Byte code is cached, whatever this process does: it halves the start time.
    excluded = {*NAMES, "PYTHONDONTWRITEBYTECODE"}
    inherited = {name: value for name, value in os.environ.items() if name not in excluded}
    return {
        **inherited,
        **dict.fromkeys(NAMES, ""),
        "DJANGO_SETTINGS_MODULE": "dashboard.settings",
        "SECRET_KEY": "tests-only-" + "x" * 50,
        "LOG_LEVEL": "WARNING",
        **variables,
    }


def manage(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command until it exits."""
    with tempfile.NamedTemporaryFile("r") as log:
        process, stdout = _fork("manage", arguments, variables, Path(log.name))
        with stdout:
            output = stdout.read()
        process.wait(WAIT_TIMEOUT)
        assert process.returncode is not None
        return subprocess.CompletedProcess(arguments, process.returncode, output, log.read())


def prepare_database(**variables: str) -> None:
    """Migrate the database of these settings, and add a superuser, boss/boss."""
    assert manage("migrate", "-v0", **variables).returncode == 0
    account = ("createsuperuser", "--noinput", "--username=boss", "--email=")
    result = manage(*account, DJANGO_SUPERUSER_PASSWORD="boss", **variables)
    assert result.returncode == 0, result.stderr


def _fork(
    module: str, arguments: Iterable[str], variables: Mapping[str, str], log: Path
) -> tuple["Forked", IO[str]]:
    """Start a module as a command; return its process and its standard output."""
    reader, writer = _context.Pipe(duplex=False)
    process = _context.Process(
        target=forked.run, args=(module, list(arguments), environment(**variables), writer, log)
    )
    process.start()
    writer.close()
    with reader:
        return Forked(process), os.fdopen(os.dup(reader.fileno()))


class ProductFork:
    """A process that has imported the product with some settings, and forks for each command.

    Importing takes most of a process's start.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        self.variables = environment(**variables)
        self.connection, other_end = _context.Pipe()
        self.process = _context.Process(
            target=forked.fork_on_request, args=(self.variables, other_end)
        )
        self.process.start()
        other_end.close()
        self.exit_codes: dict[int, int] = {}

    def close(self) -> None:
        """End the process; those it has forked have ended."""
        self.connection.close()
        self.process.join(WAIT_TIMEOUT)

    def start(
        self, module: str, arguments: Iterable[str], log: Path, **variables: str
    ) -> tuple["ForkedOnRequest", IO[str]]:
        """Start a module as a command; return its process and its standard output.

        `variables` are of the environment, and no settings of the product.
        """
        self.connection.send((module, list(arguments), {**self.variables, **variables}, log))
        reader, writer = os.pipe()
        assert self.process.pid
        send_handle(self.connection, writer, self.process.pid)
        os.close(writer)
        while (pid := self.receive(WAIT_TIMEOUT)) is None:
            pass
        return ForkedOnRequest(self, pid), os.fdopen(reader)

    def receive(self, timeout: float) -> int | None:
        """Wait for an answer; return the id of a process that has started."""
        if not self.connection.poll(timeout):
            return None
        pid, code = self.connection.recv()
        if code is not None:
            self.exit_codes[pid] = code
            return None
        return int(pid)


@contextlib.contextmanager
def product_fork(**variables: str) -> Iterator[ProductFork]:
    """Yield a process that forks commands with these settings until the block ends."""
    process = ProductFork(variables)
    try:
        yield process
    finally:
        process.close()


class Process(Protocol):
    """The interface of a process that the tests use."""

    @property
    def pid(self) -> int: ...

    @property
    def returncode(self) -> int | None: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float) -> int | None: ...

    def send_signal(self, number: int) -> None: ...


class Forked:
    """A forked process with the interface of `subprocess.Popen`."""

    def __init__(self, process: BaseProcess) -> None:
        self.process = process

    @property
    def pid(self) -> int:
        assert self.process.pid
        return self.process.pid

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
        os.kill(self.pid, number)


class ForkedOnRequest:
    """A process of a ProductFork, with the interface of `subprocess.Popen`."""

    def __init__(self, parent: ProductFork, pid: int) -> None:
        self.parent, self._pid = parent, pid

    @property
    def pid(self) -> int:
        return self._pid

    @property
    def returncode(self) -> int | None:
        while self.parent.connection.poll(0):
            self.parent.receive(0)
        return self.parent.exit_codes.get(self.pid)

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float) -> int | None:
        deadline = time.monotonic() + timeout
        while self.returncode is None:
            if (remaining := deadline - time.monotonic()) <= 0:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            self.parent.receive(remaining)
        return self.returncode

    def send_signal(self, number: int) -> None:
        # It is no child of this process: once it has ended, nothing keeps its number.
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)


@dataclass
class RunningProcess:
    """A process that has printed its startup lines."""

    process: Process
    startup_lines: list[str]
    log: Path
    base_url: str = ""
    clients: list[httpx.Client] = field(default_factory=list)

    def end(self, number: int) -> float:
        """Send a signal, wait until the process exits, and return the seconds it took."""
        start_time = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(WAIT_TIMEOUT)
        return time.monotonic() - start_time

    def create_client(self) -> httpx.Client:
        self.clients.append(
            httpx.Client(base_url=self.base_url, timeout=WAIT_TIMEOUT, verify=False)
        )
        return self.clients[-1]

    def sign_in(self, name: str) -> httpx.Client:
        """Return a client that has submitted the sign-in form as `name`."""
        client = self.create_client()
        client.get("/accounts/login/")
        data = {"username": name, "password": name, "csrfmiddlewaretoken": live.token(client)}
        client.post("/accounts/login/", data=data)
        return client


@contextlib.contextmanager
def run_manage(folder: Path, *arguments: str, **variables: str) -> Iterator[RunningProcess]:
    """Run `manage.py` with these arguments until the block ends.

    Its own sandbox has the same runs at any time of day.
    """
    if arguments[0] == "serve" and not variables.get("NORTHFLANK_API_TOKEN"):
        arguments = (*arguments, "--origin", str(live.options().schedule_origin))
    with fork("manage", *arguments, folder=folder, **variables) as process:
        yield process


@contextlib.contextmanager
def fork(
    module: str,
    *arguments: str,
    folder: Path,
    parent: ProductFork | None = None,
    **variables: str,
) -> Iterator[RunningProcess]:
    """Run a module as a command until the block ends, forked with the libraries imported.

    A fork starts in half the time of a fresh process, and one of a `parent` in a tenth.
    """
    log = folder / f"{time.monotonic_ns()}.log"
    process: Process
    if parent is None:
        process, stdout = _fork(module, arguments, variables, log)
    else:
        process, stdout = parent.start(module, arguments, log, **variables)
    with stdout, run_until_exit(process, stdout, log) as running_process:
        yield running_process


@contextlib.contextmanager
def start(command: list[str], folder: Path, **variables: str) -> Iterator[RunningProcess]:
    """Run a command in a fresh process until the block ends."""
    log = folder / f"{time.monotonic_ns()}.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            command,
            cwd=settings.BASE_DIR,
            env=environment(**variables),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert process.stdout is not None
    with process.stdout, run_until_exit(process, process.stdout, log) as running_process:
        yield running_process


@contextlib.contextmanager
def run_until_exit(process: Process, stdout: IO[str], log: Path) -> Iterator[RunningProcess]:
    """Wait for a process's startup lines, and kill it when the block ends."""
    evidence.add("process", lambda folder, name: shutil.copy(log, folder / f"{name}.log"))
    clients: list[httpx.Client] = []
    try:
        startup_lines = _read_startup_lines(stdout)
        assert startup_lines, log.read_text()
        match = re.search(r"http://\S+:\d+", startup_lines[0])
        yield RunningProcess(process, startup_lines, log, match[0] if match else "", clients)
    finally:
        for client in clients:
            client.close()
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait(WAIT_TIMEOUT)


def _read_startup_lines(out: IO[str]) -> list[str]:
    lines = []
    while line := out.readline():
        lines.append(line.strip())
        if re.search("Sync worker started|Release flows on|Sandbox on|running on", line):
            break
    return lines


@contextlib.contextmanager
def upstream() -> Iterator[tuple[str, sandbox.Sandbox]]:
    """Run a sandbox in this process, on a port for other processes; yield its URL and its state."""
    app = sandbox.Sandbox(live.options())
    with serve_in_thread(Server(app)) as url:
        yield url, app
