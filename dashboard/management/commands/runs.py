"""`manage.py runs`: what is in flight, without a browser."""

from argparse import ArgumentParser
from typing import Any

from dashboard.aborts.messages import of as story_of
from dashboard.accounts import permissions
from dashboard.db.threads import now
from dashboard.management.cli import arguments, output
from dashboard.management.cli.command import RunbookCommand
from dashboard.models import Run, Stage
from dashboard.runs import durations, statuses
from dashboard.sync import coverage
from dashboard.web.api import queries, serializers
from dashboard.web.components import run_row
from dashboard.web.http import lookup

HEAD = ("RUN", "STATUS", "STEP", "WHERE", "FOR", "AS OF", "ABORT")


class Command(RunbookCommand):
    help = "List the runs in flight, newest first, as the dashboard's database has them."

    def add_arguments(self, parser: ArgumentParser) -> None:
        arguments.add_place(parser)
        parser.add_argument("--json", action="store_true", help="As GET /api/runs/ would.")

    def act(self, **options: Any) -> None:
        here = Run.objects.in_flight().filter(queries.at(arguments.place(options)))
        found = list(here.with_place().without_detail().order_by("-created_at", "-pk"))
        latest = run_row.latest_aborts(found)
        if blind := output.why_blind(now()):
            self.stderr.write(blind)
        place = arguments.place(options)
        stages = Stage.objects.present().filter(queries.stages_at(place))
        lists = lookup.lists(permissions.ALL).filter(queries.lists_at(place))
        known = coverage.load(stages, lists, now())
        if not known.complete:
            self.stderr.write(known.text)
        if options["json"]:
            listed = [serializers.run(run, latest.get(run.pk)) for run in found]
            self.stdout.write(output.json({"runs": listed} | serializers.complete(known)))
        elif not found and known.complete:
            self.stdout.write("Nothing is in flight.")
        elif not found:
            self.stdout.write("Nothing in flight was found so far.")
        else:
            self.stdout.write(output.table(HEAD, [_row(run, latest.get(run.pk)) for run in found]))


def _row(run: Run, abort: Any) -> tuple[str, ...]:
    return (
        run.run_id,
        statuses.of_run(run.status).word,
        run.step,
        str(queries.place_of(run)),
        durations.in_words(now() - (run.started_at or run.created_at)),
        output.clock(run.seen_at),
        story_of(abort, run).sentence if abort is not None else "",
    )
