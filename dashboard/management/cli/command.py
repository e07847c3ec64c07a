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


class OfflineCheckCommand(BaseCommand):
    """A command whose system checks need no database.

    Django's check of a computed column asks PostgreSQL for its version, and a database that is away
    would end in a traceback before the command can say so.
    """

    def check(self, *args: Any, **options: Any) -> None:
        super().check(*args, **{"databases": ()} | options)


class ServerCommand(OfflineCheckCommand):
    """A command that serves users: with a token of Northflank, only if `check --deploy` passes.

    With the sandbox, only errors end it.
    """

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--migrate", action="store_true", help="Migrate PostgreSQL first, as SQLite always is."
        )

    def check(self, *args: Any, **options: Any) -> None:
        if not settings.SANDBOX:
            options = {"include_deployment_checks": True, "fail_level": checks.WARNING} | options
        super().check(*args, **options)


class RunbookCommand(OfflineCheckCommand):
    """Call `run_command`; raise CommandError if the database is not migrated or fails."""

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            schema.verify(connection)
            db_threads.set_clock_offset()
            self.run_command(**options)
        except schema.SchemaError as error:
            raise CommandError(str(error)) from error
        except (DatabaseError, InterfaceError) as error:
            raise CommandError(f"Database error: {error}") from error

    def run_command(self, **options: Any) -> None:
        raise NotImplementedError


def shell_account() -> str:
    """Return the system account that runs the command, by its name or else its id, and the host."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # KeyError until Python 3.12; in a container with another user id
        name = f"uid {os.getuid()}"
    return f"{name}@{socket.gethostname()}"
