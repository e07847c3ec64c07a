"""`manage.py run RUN`: show the state of a run and its aborts."""

from argparse import ArgumentParser
from typing import Any

from dashboard.db.threads import now
from dashboard.management.cli import arguments, output
from dashboard.management.cli.command import RunbookCommand
from dashboard.web.api import serializers


class Command(RunbookCommand):
    help = "Show a run and its aborts, as last read from Northflank."

    def add_arguments(self, parser: ArgumentParser) -> None:
        arguments.add_run_argument(parser)
        parser.add_argument(
            "--json", action="store_true", help="Print JSON like GET /api/runs/RUN/."
        )

    def run_command(self, **options: Any) -> None:
        run = arguments.find_run(options)
        if problem := output.sync_problem(now()):
            self.stderr.write(problem)
        if options["json"]:
            run_json = serializers.run(run)
            history_json = {
                "aborts": serializers.aborts(run),
                "acknowledgements": serializers.acknowledgement_entries(run),
                "dismissals": serializers.dismissals(run),
            }
            self.stdout.write(output.to_json(run_json | history_json))
            return
        self.stdout.write(output.run_text(run))
        for abort in run.aborts.order_by("-pk"):
            self.stdout.write(f"\n{output.abort_text(abort, run)}")
