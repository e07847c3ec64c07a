"""`manage.py run RUN`: how one run stands, and what was done about it."""

from argparse import ArgumentParser
from typing import Any

from dashboard.db.threads import now
from dashboard.management.cli import arguments, output
from dashboard.management.cli.command import RunbookCommand
from dashboard.web.api import serializers
from dashboard.web.components import run_row


class Command(RunbookCommand):
    help = "Tell how a run stands and what was done about it, as the dashboard's database has it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        arguments.add_run(parser)
        parser.add_argument("--json", action="store_true", help="As GET /api/runs/RUN/ would.")

    def act(self, **options: Any) -> None:
        run = arguments.run(options)
        if blind := output.why_blind(now()):
            self.stderr.write(blind)
        if options["json"]:
            whole = serializers.run(run, run_row.latest_aborts([run]).get(run.pk))
            told = {"aborts": serializers.aborts(run), "looking": serializers.lookings(run)}
            self.stdout.write(output.json(whole | told))
            return
        self.stdout.write(output.of_run(run))
        for abort in run.aborts.order_by("-pk"):
            self.stdout.write(f"\n{output.of_abort(abort, run)}")
