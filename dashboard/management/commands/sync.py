"""`manage.py sync`: run only a sync worker; any number may share one PostgreSQL database."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import connection

from dashboard.management.commands.serve import prepare, run
from dashboard.server.process import Process


class Command(BaseCommand):
    help = "Read Northflank into the database; the pages are served by `serve --no-sync`."

    def handle(self, *args: Any, **options: Any) -> None:
        if settings.SANDBOX:
            raise CommandError(
                "Without NORTHFLANK_API_TOKEN there is nothing to read: see `serve`."
            )
        if connection.vendor == "sqlite":
            raise CommandError("Separate processes need PostgreSQL: set DATABASE_URL.")
        prepare()
        self.stdout.write("Reading Northflank. Ctrl-C ends it.")
        self.stdout.flush()
        run(Process(web_socket=None, runs_sync=True))
