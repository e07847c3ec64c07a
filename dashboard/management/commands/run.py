"""`manage.py run RUN`: how one run stands, and what was done about it."""

from argparse import ArgumentParser
from typing import Any

from dashboard.database import now
from dashboard.management.runbook import which, words
from dashboard.management.runbook.command import RunbookCommand
from dashboard.web import rows
from dashboard.web.api import shapes


class Command(RunbookCommand):
    help = "Tell how a run stands and what was done about it, as the dashboard's database has it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        which.add_run(parser)
        parser.add_argument("--json", action="store_true", help="As GET /api/runs/RUN/ would.")

    def act(self, **options: Any) -> None:
        run = which.run(options)
        if blind := words.why_blind(now()):
            self.stderr.write(blind)
        if options["json"]:
            whole = shapes.run(run, rows.latest_aborts([run]).get(run.pk))
            told = {"aborts": shapes.aborts(run), "looking": shapes.lookings(run)}
            self.stdout.write(words.json(whole | told))
            return
        self.stdout.write(words.of_run(run))
        for abort in run.aborts.order_by("-pk"):
            self.stdout.write(f"\n{words.of_abort(abort, run)}")
