"""`manage.py serve`: dashboard, sync and, without an API token, the sandbox in one process."""

import asyncio
import socket
from argparse import ArgumentParser, ArgumentTypeError
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection, connections
from django.urls import reverse

from dashboard import sandbox
from dashboard.accounts import demo
from dashboard.accounts.administration.account_changes import add_first_administrator
from dashboard.accounts.authentication import break_glass
from dashboard.db import health as db_health
from dashboard.db import schema
from dashboard.management.cli.command import ServerCommand
from dashboard.models import append_only
from dashboard.server import database_lock, memory
from dashboard.server.process import Process, verify_database


class Command(ServerCommand):
    help = (
        "Serve the dashboard and run a sync worker; without an API token, against the embedded "
        "sandbox."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--host", type=host_name, default="127.0.0.1", help="Address to listen on."
        )
        parser.add_argument(
            "--port",
            type=int,
            default=settings.PORT,
            help="Port to listen on, instead of PORT; 0 for any free port.",
        )
        parser.add_argument(
            "--no-sync", action="store_true", help="Serve pages only; run `sync` separately."
        )
        sandbox.add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        if options["no_sync"] and settings.SANDBOX:
            raise CommandError(
                "--no-sync needs an upstream that other processes can reach: set "
                "NORTHFLANK_API_TOKEN (and NORTHFLANK_API_BASE_URL for `manage.py sandbox`)."
            )
        options_for_sandbox = sandbox.build_options(options)
        sock = listen(options["host"], options["port"])
        file: Path | None = None
        if settings.SANDBOX and settings.DATABASE_IS_DEFAULT:
            file = settings.VAR_DIR / f"sandbox-{options_for_sandbox.scenario}.sqlite3"
            connections.databases["default"]["NAME"] = str(file)  # in all threads
        database_lock.acquire()  # until the process ends, however it ends
        if file is not None:
            _remove_database(file)
        prepare(migrates=options["migrate"])
        self.stdout.write(f"Release flows on {base_url(sock)}{reverse('now')}")
        if settings.SANDBOX:
            self.stdout.write("Upstream: sandbox (NORTHFLANK_API_TOKEN is not set).")
        if settings.SANDBOX and settings.PASSWORD_SIGN_IN:
            self.stdout.write("Sign in as manager/manager, viewer/viewer or admin/admin.")
        if file is not None:
            self.stdout.write(f"For other commands set DATABASE_URL=sqlite:///{file}")
        self.stdout.flush()
        process = Process(
            web_socket=sock,
            runs_sync=not options["no_sync"],
            sandbox_options=options_for_sandbox,
        )
        run(process)


def host_name(text: str) -> str:
    """Return a host; raise ArgumentTypeError if it is empty, which would mean all addresses."""
    if not text:
        raise ArgumentTypeError("must not be empty; 0.0.0.0 listens on all addresses.")
    return text


def _remove_database(file: Path) -> None:
    """Remove the database that the sandbox had at the last start: its runs are new at each."""
    connection.close()
    for suffix in ("", "-wal", "-shm"):
        file.with_name(file.name + suffix).unlink(missing_ok=True)


def prepare(*, migrates: bool = False) -> None:
    """Prepare the database and the first accounts for the settings.

    SQLite is migrated, another database if it `migrates`. Raise CommandError if it is not migrated
    or lacks the audit's triggers, if it mirrors another Northflank, or if it accepts no changes.
    """
    _migrate(migrates or connection.vendor == "sqlite")
    verify_database()
    if settings.SANDBOX:
        demo.enable()
    else:
        demo.disable()
        if settings.ADMIN_PASSWORD:
            _add_administrator()
    break_glass.warn_if_unusable()
    db_health.test_write()
    connection.close()


def _add_administrator() -> None:
    try:
        add_first_administrator(settings.ADMIN_USERNAME, settings.ADMIN_PASSWORD)
    except ValidationError as error:
        raise CommandError(
            "The administrator of ADMIN_USERNAME and ADMIN_PASSWORD cannot be added: "
            f"{' '.join(error.messages)}"
        ) from error


def _migrate(migrates: bool) -> None:
    try:
        schema.verify(connection)
    except schema.NotMigrated:
        if not migrates:
            raise
        with schema.exclusive_migration(connection):
            call_command("migrate", verbosity=0)
    # An interrupted migration leaves the triggers out.
    if not append_only.are_triggers_installed(connection):
        if not migrates:
            raise CommandError(
                "The database triggers that protect the audit of aborts are missing: run "
                "`manage.py migrate`."
            )
        append_only.install_triggers(connection)


def run(process: Process) -> None:
    """Run `process` on uvloop until it has stopped."""
    import uvloop

    memory.share_heap()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(process.run())


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; raise CommandError if it can't."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError, TypeError) as error:  # TypeError: a name like "ä..b"
        raise CommandError(f"Cannot listen on {host}:{port}: {error}") from error


def base_url(sock: socket.socket) -> str:
    """Return the URL of a listening socket, without a path."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
