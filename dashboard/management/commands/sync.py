"""`manage.py sync`: run only a sync worker.

Any number may share one PostgreSQL database: one reads, the others stand by.
"""

from typing import Any

from django.conf import settings
from django.core.management.base import CommandError
from django.db import connection

from dashboard.management.cli.command import ServerCommand
from dashboard.management.commands.serve import prepare, run
from dashboard.server.process import Process


class Command(ServerCommand):
    help = "Run a sync worker only; `serve --no-sync` serves the pages."

    def handle(self, *args: Any, **options: Any) -> None:
        if settings.SANDBOX:
            raise CommandError(
                "NORTHFLANK_API_TOKEN is not set: the sandbox can only be synced by `serve`."
            )
        if connection.vendor == "sqlite":
            raise CommandError("Separate processes require PostgreSQL: set DATABASE_URL.")
        prepare(migrates=options["migrate"])
        self.stdout.write("Sync worker started. Press Ctrl-C to stop.")
        self.stdout.flush()
        run(Process(web_socket=None, runs_sync=True))
