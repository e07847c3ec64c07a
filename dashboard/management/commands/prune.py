"""`manage.py prune`: delete what is older than the settings allow, beside a running dashboard."""

import time
from argparse import ArgumentParser
from typing import Any

from django.conf import settings

from dashboard.db.threads import now
from dashboard.management.cli import output
from dashboard.management.cli.command import RunbookCommand
from dashboard.models import Pruning
from dashboard.sync import pruning


class Command(RunbookCommand):
    help = (
        "Delete runs, steps and access events that are older than the settings allow. The sync "
        "worker does it once a day; this command does it at once, in small batches."
    )
    interrupted = "Interrupted. What was deleted stays deleted; the next pass continues."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--dry-run",
            action="store_true",
            help="Print what would be deleted at most; delete nothing.",
        )

    def run_command(self, **options: Any) -> None:
        if options["dry_run"]:
            self._print("Would delete at most", pruning.count_prunable(now()))
            return
        for pause in pruning.prune(now()):
            time.sleep(pause)
        self._print("Deleted", Pruning.objects.get(pk=1))

    def _print(self, verb: str, last: Pruning) -> None:
        limits = pruning.limits(now())
        steps = f"the steps of {last.deleted_steps:,} runs that ended"
        events = f"{last.deleted_access_events:,} access events"
        for what, limit, name in (
            (f"{last.deleted_runs:,} runs that ended", limits.runs, "RETENTION_DAYS"),
            (steps, limits.steps, "STEPS_RETENTION_DAYS"),
            (events, limits.access_events, "ACCESS_LOG_DAYS"),
        ):
            setting = f"{name}={getattr(settings, name)}"
            self.stdout.write(f"{verb} {what} before {output.format_time(limit)} ({setting}).")
