"""A PostgreSQL server of the tests' own, with a standby: to restart and to fill up."""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg

from tests.support.ports import free_port
from tests.support.services import POSTGRES_PROGRAMS

DATABASE = "dashboard"
ROLE = "dashboard"  # no superuser, so that the last connections are not for it
# A server that dies takes no data with it as long as the machine lives: no write waits for a disk.
_SETTINGS = {
    "fsync": "off",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_buffers": "16MB",
    "max_connections": "30",
    "wal_level": "replica",
    "hot_standby": "on",
    "wal_retrieve_retry_interval": "100ms",
    "log_min_messages": "fatal",
}
_REPLICATION = {"primary_slot_name": "standby", "hot_standby_feedback": "on"}


@dataclass
class Server:
    """One server of a cluster: its folder and port."""

    folder: Path
    port: int

    def url(self, database: str = DATABASE, role: str = ROLE) -> str:
        return f"postgres://{role}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start, and return once it accepts connections."""
        options = f"-p {self.port}"
        self._control("start", "-o", options, "-l", str(self.folder / "server.log"))

    def stop(self, mode: str = "fast") -> None:
        """Stop; `immediate`: as if it had been killed, to recover at the next start."""
        self._control("stop", "-m", mode)

    def execute(self, statement: str, database: str = DATABASE) -> None:
        """Execute a statement as superuser."""
        with psycopg.connect(self.url(database, "postgres"), autocommit=True) as connection:
            connection.execute(statement)

    def configure(self, **settings: str) -> None:
        """Add lines to its configuration, for its next start."""
        with (self.folder / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())

    def _control(self, command: str, *arguments: str) -> None:
        _run("pg_ctl", command, "-w", "-s", "-D", str(self.folder), *arguments)


@dataclass
class Cluster:
    """A primary server, and the folder of all servers, which is removed at the end."""

    folder: Path
    primary: Server

    @contextlib.contextmanager
    def standby(self) -> Iterator[Server]:
        """Run a hot standby: it answers reads and refuses writes."""
        port = free_port()
        standby = Server(self.folder / f"standby-{port}", port)
        self.primary.execute("SELECT pg_create_physical_replication_slot('standby', true)")
        _run(
            "pg_basebackup", "-R", "-X", "stream", "-c", "fast", "-D", str(standby.folder),
            "-d", self.primary.url("", "postgres"),
        )  # fmt: skip
        standby.configure(**_REPLICATION)
        standby.start()
        try:
            yield standby
        finally:
            standby.stop("immediate")


@contextlib.contextmanager
def postgres_cluster() -> Iterator[Cluster]:
    """Run a PostgreSQL server with an empty database until the block ends."""
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    if (user := _server_user()) is not None:
        shutil.chown(folder, user)
    primary = Server(folder / "primary", free_port())
    try:
        _run(
            "initdb", "--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8",
            "--locale=C", "-D", str(primary.folder),
        )  # fmt: skip
        primary.configure(**_SETTINGS)
        primary.start()
        primary.execute(f"CREATE ROLE {ROLE} LOGIN", "postgres")
        primary.execute(f"CREATE DATABASE {DATABASE} OWNER {ROLE}", "postgres")
        try:
            yield Cluster(folder, primary)
        finally:
            with contextlib.suppress(subprocess.CalledProcessError):  # the test has stopped it
                primary.stop("immediate")
    finally:
        shutil.rmtree(folder)


def _server_user() -> str | None:
    """Return the account to run a server as; None: this one. A server refuses to run as root."""
    if os.geteuid() != 0:
        return None
    names = {account.pw_name for account in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _run(program: str, *arguments: str) -> None:
    assert POSTGRES_PROGRAMS is not None
    user = _server_user()
    # No pipe: a server inherits it, and it would be open for as long as the server runs.
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.run(
            [POSTGRES_PROGRAMS / program, *arguments],
            user=user,
            group=pwd.getpwnam(user).pw_gid if user else None,
            extra_groups=[] if user else None,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            check=False,
        )
        output.seek(0)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, program, output.read())
