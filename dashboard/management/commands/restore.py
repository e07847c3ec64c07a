"""`manage.py restore FILE`: replace the database's contents by those of a backup."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError
from django.db import DatabaseError, InterfaceError

from dashboard.management.cli.command import OfflineCheckCommand
from dashboard.server import backup


class Command(OfflineCheckCommand):
    help = "Restore the database from FILE, written by `backup`. Stop the dashboard first."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, metavar="FILE", help="Backup to restore.")
        parser.add_argument(
            "--replace", action="store_true", help="Replace a database that is not empty."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        file: Path = options["file"]
        try:
            self.stdout.write(f"Restoring {file} into {backup.describe_database()}.")
            self.stdout.flush()
            backup.restore(file, replaces=options["replace"])
        except backup.BackupError as error:
            raise CommandError(str(error)) from error
        except (DatabaseError, InterfaceError) as error:
            raise CommandError(f"Database error: {error}") from error
        except KeyboardInterrupt:
            raise CommandError(
                "Interrupted. The database may have been replaced already: before you start the "
                "dashboard, run `restore --replace` again."
            ) from None
        self.stdout.write(f"Restored {file}. Everybody has to sign in again.")
