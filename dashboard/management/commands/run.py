"""`manage.py run RUN`: show the state of a run and its aborts."""

import asyncio
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError

from dashboard.accounts import access_log
from dashboard.db.threads import now
from dashboard.management.cli import arguments, output
from dashboard.management.cli.command import RunbookCommand, shell_account
from dashboard.models import Run
from dashboard.runs import steps, waiting_for, works
from dashboard.runs.works import AwaitedWork
from dashboard.sync import log_reader
from dashboard.sync.log_reader import LogReader, LogView
from dashboard.upstream.connection import create_connection
from dashboard.web.api import serializers


class Command(RunbookCommand):
    help = "Show a run and its aborts, as last read from Northflank; with --log, its log as of now."

    def add_arguments(self, parser: ArgumentParser) -> None:
        arguments.add_run_argument(parser)
        parser.add_argument(
            "--json", action="store_true", help="Print JSON like GET /api/runs/RUN/."
        )
        parser.add_argument(
            "--log",
            type=arguments.parse_line_count,
            nargs="?",
            const=log_reader.LINES,
            metavar="LINES",
            help="Read the newest lines of what it waits for, or failed in; 50 if not said.",
        )

    def run_command(self, **options: Any) -> None:
        run = arguments.find_run(options)
        if problem := output.sync_problem(now()):
            self.stderr.write(problem)
        view = _read_log(run, options["log"]) if options["log"] is not None else None
        if options["json"]:
            log = serializers.log(view) if view is not None else None
            self.stdout.write(output.to_json(serializers.run_with_history(run, log=log)))
            return
        self.stdout.write(output.run_text(run))
        if view is not None:
            self.stdout.write(output.log_text(view))
        for abort in run.aborts.order_by("-pk"):
            self.stdout.write(f"\n{output.abort_text(abort, run)}")


def _read_log(run: Run, max_lines: int) -> LogView | None:
    """Return what it waits for with its newest lines; None if that has no log."""
    if settings.SANDBOX:
        raise CommandError("Only `manage.py serve` reads the sandbox’s logs: open the run’s page.")
    awaited = works.awaited_work(run, steps.decode(run.steps))
    if awaited is None:
        return None
    view = asyncio.run(_look(run, awaited, max_lines))
    source = str(waiting_for.name(awaited[1], view.work))
    access_log.record_logs_opened_by_command(run, source, shell_account(), now())
    return view


async def _look(run: Run, awaited: AwaitedWork, max_lines: int) -> LogView:
    connection = create_connection(settings.NORTHFLANK_API_BASE_URL, settings.NORTHFLANK_API_TOKEN)
    try:
        return await LogReader(connection).look(run, awaited, max_lines=max_lines)
    finally:
        await connection.close()
