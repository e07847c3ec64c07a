"""`manage.py backup FILE`: write the whole database to a file, while the dashboard runs."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.template.defaultfilters import filesizeformat

from dashboard.management.cli.command import OperatorCommand
from dashboard.server import backup


class Command(OperatorCommand):
    help = "Write the whole database to FILE, as of now, while the dashboard runs."
    interrupted = "Interrupted. There is no backup."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "file", type=Path, metavar="FILE", help="File to write; must not exist."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        file: Path = options["file"]
        backup.create(file)
        size = filesizeformat(file.stat().st_size).replace("\xa0", " ")
        self.stdout.write(
            f"Backed up to {file} ({size}). It contains secrets: see docs/run/backup-upgrade.md."
        )
