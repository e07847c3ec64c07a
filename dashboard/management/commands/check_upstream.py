"""`manage.py check_upstream`: what the token can read, what is missing, and what to do."""

import asyncio
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError

from dashboard.management.cli import output
from dashboard.management.cli.command import OperatorCommand
from dashboard.upstream.check import check

MAX_LINE_LENGTH = 400  # characters


class Command(OperatorCommand):
    help = (
        "Check what the API token can read, by requests that change nothing. Exits with 0 if all "
        "could be read, with 1 if something could not or a project is missing, with 2 if the "
        "projects could not be read."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        if settings.SANDBOX:
            raise CommandError("NORTHFLANK_API_TOKEN is not set.")
        base_url, team_id = settings.NORTHFLANK_API_BASE_URL, settings.NORTHFLANK_TEAM_ID
        report = asyncio.run(
            check(settings.NORTHFLANK_API_TOKEN, base_url, team_id, settings.NORTHFLANK_PROJECTS)
        )
        team = f", team {team_id}" if team_id else ""
        self.stdout.write(f"Northflank: {base_url}{team}, token from {token_source()}")
        for line in report.lines:
            self.stdout.write(output.printable(line, MAX_LINE_LENGTH))
        if report.exit_status:
            raise SystemExit(report.exit_status)


def token_source() -> str:
    """Return “the environment”, or the path of the `.env` file if only that sets the token."""
    is_from_file = "NORTHFLANK_API_TOKEN" in settings.ENV_FILE_NAMES
    return str(settings.ENV_FILE) if is_from_file else "the environment"
