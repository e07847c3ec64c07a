"""`manage.py check_upstream`: what the token can read, what is missing, and what to do."""

import asyncio
from argparse import ArgumentParser
from collections.abc import Iterator
from typing import Any

import msgspec
from django.conf import settings
from django.core.management.base import CommandError, SystemCheckError

from dashboard.management.cli import output
from dashboard.management.cli.command import OfflineCheckCommand
from dashboard.upstream.check import MAX_REQUESTS, Report, check

NOT_CHECKED = 2  # exit status, as for an invalid command line


class Command(OfflineCheckCommand):
    help = (
        f"Check what the API token can read, with up to {MAX_REQUESTS} requests that change "
        "nothing. Exits with 0 if all could be read, with 1 if something could not or a project is "
        "missing, with 2 if the projects could not be read."
    )
    requires_system_checks = ()  # `handle` runs them, for the exit status

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="Print the report as JSON.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            self.check()
        except SystemCheckError as error:
            raise CommandError(str(error), returncode=NOT_CHECKED) from error
        if settings.SANDBOX:
            raise CommandError("NORTHFLANK_API_TOKEN is not set.", returncode=NOT_CHECKED)
        try:
            report = asyncio.run(
                check(
                    settings.NORTHFLANK_API_TOKEN,
                    settings.NORTHFLANK_API_BASE_URL,
                    settings.NORTHFLANK_TEAM_ID,
                    settings.NORTHFLANK_PROJECTS,
                )
            )
        except KeyboardInterrupt:
            raise CommandError("Interrupted.", returncode=NOT_CHECKED) from None
        if options["json"]:
            status = {"exit_status": report.exit_status, "token_source": token_source()}
            self.stdout.write(output.to_json(status | msgspec.to_builtins(report)))
        else:
            self.stdout.write("\n".join(_lines(report)))
        if report.exit_status:
            raise SystemExit(report.exit_status)


def token_source() -> str:
    """Return “the environment”, or the path of the `.env` file if only that sets the token."""
    is_from_file = "NORTHFLANK_API_TOKEN" in settings.ENV_FILE_NAMES
    return str(settings.ENV_FILE) if is_from_file else "the environment"


def _lines(report: Report) -> Iterator[str]:
    team = f", team {report.team_id}" if report.team_id else ""
    yield f"Northflank: {report.base_url}{team}, token from {token_source()}"
    yield from filter(None, (_verdict(report), report.hint))
    for error in report.errors:
        if error != report.stopped:
            yield f"  {output.printable(error, 400)}"
    yield from _rate_limit_lines(report)
    if report.token:
        facts = [
            f"{name} {output.printable(fact, 200)}" for name, fact in report.token.items() if fact
        ]
        yield f"Token: {', '.join(facts)}"
    for permission in report.permissions:
        if "project" in permission.lower() or "pipeline" in permission.lower():
            yield f"  has {output.printable(permission, 100)}"
    if report.projects is not None:
        yield "May:"
        yield from (f"  {name:24}{result}" for name, result in report.access.items())
        yield from _content_lines(report, report.projects)


def _content_lines(report: Report, projects: list[str]) -> Iterator[str]:
    more = "+" if report.has_more_projects else ""
    yield f"Projects: {len(projects)}{more}; {output.printable(', '.join(projects), 400)}"
    for project in report.missing_projects:
        yield f"  {project}, of NORTHFLANK_PROJECTS, is not among them"
    for project, pipelines in report.pipelines.items():
        names = output.printable(", ".join(pipelines), 400)
        yield f"  {output.printable(project)}: {len(pipelines)} pipelines; {names}"
    for stage, runs in report.stages.items():
        yield f"  {output.printable(stage, 200)}: {runs}"


def _rate_limit_lines(report: Report) -> Iterator[str]:
    limit = report.rate_limit
    rest = f"{limit.remaining} of {limit.limit} an hour are left" if limit else "no rate limit sent"
    yield f"Requests: {report.request_count}; {rest}"


def _verdict(report: Report) -> str:
    if not report.request_count and report.stopped:
        return report.stopped
    if report.projects is None:
        verdict = "The projects cannot be read."
    elif report.exit_status:
        verdict = "Something cannot be read, or is missing."
    elif report.access["read release flows"] == "not tried":
        verdict = "All that was tried can be read, but there was no run to try."
    else:
        verdict = "All that was tried can be read."
    return f"{verdict} {report.stopped}".strip()
