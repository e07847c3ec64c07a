"""`manage.py restore FILE`: replace the database's contents by those of a backup."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from dashboard.management.cli.command import OperatorCommand
from dashboard.server import backup


class Command(OperatorCommand):
    help = "Restore the database from FILE, written by `backup`. Stop the dashboard first."
    interrupted = (
        "Interrupted. The database may have been replaced already: before you start the dashboard, "
        "run `restore --replace` again."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, metavar="FILE", help="Backup to restore.")
        parser.add_argument(
            "--replace", action="store_true", help="Replace a database that is not empty."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        file: Path = options["file"]
        self.stdout.write(f"Restoring {file} into {backup.describe_database()}.")
        self.stdout.flush()
        backup.restore(file, replaces=options["replace"])
        self.stdout.write(f"Restored {file}. Everybody has to sign in again.")
