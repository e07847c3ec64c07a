"""`manage.py backup FILE`: write the whole database to a file, while the dashboard runs."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError
from django.db import DatabaseError, InterfaceError
from django.template.defaultfilters import filesizeformat

from dashboard.management.cli.command import OfflineCheckCommand
from dashboard.server import backup


class Command(OfflineCheckCommand):
    help = "Write the whole database to FILE, as of now, while the dashboard runs."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "file", type=Path, metavar="FILE", help="File to write; must not exist."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        file: Path = options["file"]
        try:
            backup.create(file)
        except backup.BackupError as error:
            raise CommandError(str(error)) from error
        except (DatabaseError, InterfaceError) as error:
            raise CommandError(f"Database error: {error}") from error
        except KeyboardInterrupt:
            raise CommandError("Interrupted. There is no backup.") from None
        size = filesizeformat(file.stat().st_size).replace("\xa0", " ")
        self.stdout.write(
            f"Backed up to {file} ({size}). It contains secrets: see docs/run/backup-upgrade.md."
        )
