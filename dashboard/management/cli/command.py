"""Base classes of commands: their checks, and a plain message when there is no database."""

import getpass
import os
import socket
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, InterfaceError, connection

from dashboard.db import schema
from dashboard.db import threads as db_threads


class OperatorCommand(BaseCommand):
    """A command that tells an operator by one sentence why it has failed: no database, or Ctrl-C.

    Its system checks need no database: Django's check of a computed column would ask PostgreSQL for
    its version.
    """

    interrupted = "Interrupted."  # what is said after Ctrl-C

    def execute(self, *args: Any, **options: Any) -> str | None:
        try:
            return super().execute(*args, **options)
        except (DatabaseError, InterfaceError) as error:
            raise CommandError(f"Database error: {error}") from error
        except KeyboardInterrupt:
            raise CommandError(self.interrupted) from None

    def check(self, *args: Any, **options: Any) -> None:
        super().check(*args, **{"databases": ()} | options)


class ServerCommand(OperatorCommand):
    """A command that serves users: with a token of Northflank, only if `check --deploy` passes.

    With the sandbox, only errors end it.
    """

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--migrate", action="store_true", help="Run migrations first (always done on SQLite)."
        )

    def check(self, *args: Any, **options: Any) -> None:
        if not settings.SANDBOX:
            options = {"include_deployment_checks": True, "fail_level": checks.WARNING} | options
        super().check(*args, **options)


class RunbookCommand(OperatorCommand):
    """Call `run_command` with a database that is migrated."""

    def handle(self, *args: Any, **options: Any) -> None:
        schema.verify(connection)
        db_threads.set_clock_offset()
        self.run_command(**options)

    def run_command(self, **options: Any) -> None:
        raise NotImplementedError


def shell_account() -> str:
    """Return the system account that runs the command, by its name or else its id, and the host."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # KeyError until Python 3.12; in a container with another user id
        name = f"uid {os.getuid()}"
    return f"{name}@{socket.gethostname()}"
