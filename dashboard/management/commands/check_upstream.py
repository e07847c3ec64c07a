"""`manage.py check_upstream`: what the token can read, and where Northflank's answers differ."""

import asyncio
from argparse import ArgumentParser
from collections.abc import Iterator
from typing import Any

import msgspec
from django.conf import settings
from django.core.management.base import CommandError, SystemCheckError

from dashboard.management.cli import output
from dashboard.management.cli.command import OfflineCheckCommand
from dashboard.northflank.open_questions import QUESTIONS
from dashboard.upstream.check import Report, StageReport, TokenReport, check
from dashboard.upstream.check_client import MAX_REQUESTS

NOT_CHECKED = 2  # exit status, as for an invalid command line


class Command(OfflineCheckCommand):
    help = (
        f"Check the API token and Northflank's answers, with up to {MAX_REQUESTS} requests that "
        "change nothing. Exits with 0 if all is as documented, with 1 if something differs or "
        "cannot be read, with 2 if the projects cannot be read."
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
    if report.token is not None:
        yield from _token_lines(report.token)
    if report.projects is not None:
        yield "May:"
        yield from (f"  {name:24}{result}" for name, result in report.access.items())
        yield from _content_lines(report, report.projects)
        yield from _open_question_lines(report)
    if report.differences:
        yield "\nDifferences from the documentation, without ids, names and values:"
        rows = [
            (difference.route, difference.field, difference.problem, str(difference.count))
            for difference in report.differences
        ]
        yield output.format_table(("REQUEST", "FIELD", "DIFFERENCE", "COUNT"), rows)


def _open_question_lines(report: Report) -> Iterator[str]:
    yield "\nWhat the documentation leaves open:"
    for question, texts in report.observations.items():
        yield f"  {question:24}{output.printable(', '.join(texts), 400)}"
    if unseen := [question for question in QUESTIONS if question not in report.observations]:
        yield f"  not seen: {', '.join(unseen)}"


def _token_lines(token: TokenReport) -> Iterator[str]:
    facts = {
        "kind": token.kind,
        "of": token.owner,
        "role": token.role,
        "projects": token.projects,
        "expires": output.format_time(token.expires_at) if token.expires_at else "never",
    }
    texts = [f"{name} {output.printable(fact, 200)}" for name, fact in facts.items() if fact]
    yield f"Token: {', '.join(texts)}"
    for permission in token.permissions:
        if "project" in permission.lower() or "pipeline" in permission.lower():
            yield f"  has {output.printable(permission, 100)}"


def _content_lines(report: Report, projects: list[str]) -> Iterator[str]:
    more = "+" if report.has_more_projects else ""
    yield f"Projects: {len(projects)}{more}; {output.printable(', '.join(projects), 400)}"
    for project in report.missing_projects:
        yield f"  {project}, of NORTHFLANK_PROJECTS, is not among them"
    for project, pipelines in report.pipelines.items():
        names = output.printable(", ".join(pipelines), 400)
        yield f"  {output.printable(project)}: {len(pipelines)} pipelines; {names}"
    for stage in report.stages:
        path = f"{output.printable(stage.project)} / {output.printable(stage.pipeline)}"
        yield f"  {path} / {stage.stage}: {_describe_stage(stage)}"


def _describe_stage(stage: StageReport) -> str:
    if stage.run_count is None:
        reason = f"cannot be read ({stage.error})"
        return "no release flow" if stage.error == "not_found" else reason
    more = "+" if stage.has_more else ""
    return f"{stage.run_count}{more} runs, {stage.in_flight_count} in flight"


def _rate_limit_lines(report: Report) -> Iterator[str]:
    slowest = f"slowest answer {report.slowest_seconds:.1f} s"
    yield f"Requests: {report.request_count}; {slowest}"
    headers = ", ".join(f"{name}: {text}" for name, text in report.rate_limit_headers.items())
    yield f"  last headers: {output.printable(headers, 200) or 'none of the rate limit'}"
    if report.database_note:
        yield f"  not counted in the rate budget. {output.printable(report.database_note, 300)}"


def _verdict(report: Report) -> str:
    if report.exit_status == NOT_CHECKED:
        if not report.request_count:
            return report.stopped
        return f"The projects cannot be read. {report.stopped}"
    verdict = (
        "All as documented." if not report.exit_status else "Some answers are not as documented."
    )
    if not report.exit_status and all(stage.run_count is None for stage in report.stages):
        verdict = "As documented, but no runs could be read: little was checked."
    return f"{verdict} {report.stopped}".strip()
