"""`manage.py runs`: list the runs in flight."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from dashboard.aborts.messages import describe as story_of
from dashboard.accounts import permissions
from dashboard.db.threads import now
from dashboard.management.cli import arguments, output
from dashboard.management.cli.command import RunbookCommand
from dashboard.models import Run
from dashboard.runs import attention, statuses
from dashboard.runs.search import Search
from dashboard.texts import durations
from dashboard.web.api import queries, serializers
from dashboard.web.components.runs import row_queries
from dashboard.web.http.responses.json_responses import ApiError

HEADINGS = (
    "RUN", "TITLE", "ATTENTION", "STATUS", "OVERDUE",
    "STEP", "LOCATION", "DURATION", "AS OF", "ABORT",
)  # fmt: skip


class Command(RunbookCommand):
    help = (
        "List the runs in flight as last read from Northflank: those that need attention first, "
        "then the newest."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        arguments.add_place_options(parser)
        parser.add_argument("--search", metavar="TEXT", help="Only runs that have each word of it.")
        parser.add_argument("--json", action="store_true", help="Print JSON like GET /api/runs/.")

    def run_command(self, **options: Any) -> None:
        place = arguments.place_of(options)
        query = Run.objects.in_flight().filter(queries.run_condition(place))
        if (text := options["search"]) is not None:
            query = query.filter(Search(text).condition)
        runs = list(query.with_stage().without_detail().order_by("-created_at", "-pk"))
        latest = row_queries.latest_aborts(runs)
        if problem := output.sync_problem(now()):
            self.stderr.write(problem)
        try:
            report = queries.load_report(place, permissions.ALL)
        except ApiError as error:
            raise CommandError(error.message) from error
        if not report.is_complete:
            self.stderr.write(report.incomplete_text)
        if options["json"]:
            run_list = serializers.run_list(serializers.runs(runs), report)
            self.stdout.write(output.to_json(run_list))
        elif not runs and report.is_complete:
            self.stdout.write("No matching runs." if text is not None else "No runs in flight.")
        elif not runs:
            self.stdout.write("No runs in flight found so far.")
        else:
            rank = {run.pk: n for n, run in enumerate(attention.load(query, now()))}
            runs.sort(key=lambda run: rank.get(run.pk, len(rank)))
            rows = [_row(run, latest.get(run.pk), run.pk in rank) for run in runs]
            self.stdout.write(output.format_table(HEADINGS, rows))


def _row(run: Run, abort: Any, needs_attention: bool) -> tuple[str, ...]:
    return (
        run.run_id,
        run.name,
        "yes" if needs_attention else "",
        statuses.for_run(run.status, removed=run.has_unknown_end).label,
        output.overdue_text(run),
        output.step_text(run),
        str(queries.run_place(run)),
        # When a removed run ended is unknown.
        ""
        if run.has_unknown_end
        else durations.format_duration(now() - (run.started_at or run.created_at)),
        output.format_time(run.synced_at),
        story_of(abort, run).plain_text if abort is not None else "",
    )
