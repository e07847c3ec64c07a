"""`manage.py runs`: what is in flight, without a browser."""

from argparse import ArgumentParser
from typing import Any

from dashboard import access, durations, statuses
from dashboard.abort_story import of as story_of
from dashboard.database import now
from dashboard.management.runbook import which, words
from dashboard.management.runbook.command import RunbookCommand
from dashboard.models import Run, Stage
from dashboard.sync import coverage
from dashboard.web import places, rows
from dashboard.web.api import finding, shapes

HEAD = ("RUN", "STATUS", "STEP", "WHERE", "FOR", "AS OF", "ABORT")


class Command(RunbookCommand):
    help = "List the runs in flight, newest first, as the dashboard's database has them."

    def add_arguments(self, parser: ArgumentParser) -> None:
        which.add_place(parser)
        parser.add_argument("--json", action="store_true", help="As GET /api/runs/ would.")

    def act(self, **options: Any) -> None:
        here = Run.objects.in_flight().filter(finding.at(which.place(options)))
        found = list(here.with_place().without_detail().order_by("-created_at", "-pk"))
        latest = rows.latest_aborts(found)
        if blind := words.why_blind(now()):
            self.stderr.write(blind)
        place = which.place(options)
        stages = Stage.objects.present().filter(finding.stages_at(place))
        lists = places.lists(access.ALL).filter(finding.lists_at(place))
        known = coverage.load(stages, lists, now())
        if not known.complete:
            self.stderr.write(known.text)
        if options["json"]:
            listed = [shapes.run(run, latest.get(run.pk)) for run in found]
            self.stdout.write(words.json({"runs": listed} | shapes.complete(known)))
        elif not found and known.complete:
            self.stdout.write("Nothing is in flight.")
        elif not found:
            self.stdout.write("Nothing in flight was found so far.")
        else:
            self.stdout.write(words.table(HEAD, [_row(run, latest.get(run.pk)) for run in found]))


def _row(run: Run, abort: Any) -> tuple[str, ...]:
    return (
        run.run_id,
        statuses.of_run(run.status).word,
        run.step,
        str(finding.place_of(run)),
        durations.in_words(now() - (run.started_at or run.created_at)),
        words.clock(run.seen_at),
        story_of(abort, run).sentence if abort is not None else "",
    )
