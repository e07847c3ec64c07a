"""The aborts of one run for its page, and the text for Northflank's support."""

from functools import cache

from django.db.models import BigIntegerField, prefetch_related_objects

from dashboard.aborts import support_request
from dashboard.db import threads as db_threads
from dashboard.db.prepared import Parameter, PreparedModels
from dashboard.models import Abort, Run
from dashboard.web.components.runs.run_row import RunRow
from dashboard.web.http import links


def load_aborts(run: Run) -> list[Abort]:
    """Return a run's aborts with their events prefetched, latest first."""
    aborts = _aborts_query().fetch(run=run.pk)
    if aborts:
        prefetch_related_objects(aborts, "events")
    for abort in aborts:
        abort.run = run
    return aborts


@cache
def _aborts_query() -> PreparedModels[Abort]:
    of_run = Abort.objects.filter(run=Parameter("run", BigIntegerField()))
    return PreparedModels(of_run.order_by("-pk"))


def support_text(row: RunRow, aborts: list[Abort]) -> str:
    """Return the text for Northflank's support if the run can be aborted again, else nothing.

    `aborts` are the run's aborts, latest first.
    """
    if not row.is_abort_again_offered:
        return ""
    latest = aborts[0] if aborts and aborts[0].settled_at is None else None
    return support_request.build(row.run, latest, team=links.team_slug(), now=db_threads.now())
