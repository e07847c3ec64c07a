"""The aborts of one run for its page: their details, timelines and next steps."""

from dataclasses import dataclass
from datetime import datetime
from functools import cache

from django.db.models import BigIntegerField, prefetch_related_objects
from django.utils.translation import gettext as _

from dashboard.aborts import messages as abort_messages
from dashboard.aborts import support_request
from dashboard.aborts import timeline as abort_timeline
from dashboard.aborts.timeline import TimelineEntry
from dashboard.db import threads as db_threads
from dashboard.db.prepared import Parameter, PreparedModels
from dashboard.models import Abort, Run
from dashboard.runs import abort_clock
from dashboard.web.components.aborts import abort_details
from dashboard.web.components.runs.run_row import RunRow
from dashboard.web.http import links


@dataclass(frozen=True, slots=True)
class AbortEntry:
    """One abort with its timeline and details."""

    message: abort_messages.AbortMessage
    requested_by: str
    requested_at: datetime
    reason: str
    under_way_since: datetime | None
    is_minimum: bool
    timeline: list[TimelineEntry]
    details: list[tuple[str, str]]
    bulk_abort_url: str  # empty: not part of a bulk abort


def entries(run: Run, aborts: list[Abort]) -> list[AbortEntry]:
    """Return the entries of a run's aborts, in the given order."""
    return [_entry(abort, run) for abort in aborts]


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


def support_text(run: Run, row: RunRow, aborts: list[Abort]) -> str:
    """Return the text for Northflank's support if the run's abort can be retried, else nothing.

    `aborts` are the run's aborts, latest first.
    """
    if not row.is_retry_offered:
        return ""
    latest = aborts[0] if aborts and aborts[0].settled_at is None else None
    return support_request.build(run, latest, team=links.team_slug(), now=db_threads.now())


def _entry(abort: Abort, run: Run) -> AbortEntry:
    message = abort_messages.describe(abort, run)
    under_way_clock = abort_clock.start(run, abort) if abort.settled_at is None else None
    details = [
        (_("Requested"), abort_details.via_label(abort)),
        (_("IP address"), abort.client_address or ""),
        *abort_details.response_details(abort),
    ]
    return AbortEntry(
        message=message,
        requested_by=abort.username,
        requested_at=abort.requested_at,
        reason=abort.reason,
        under_way_since=under_way_clock.at if under_way_clock else None,
        is_minimum=under_way_clock is not None and under_way_clock.is_approximate,
        timeline=abort_timeline.entries(abort, abort.events.all()),
        details=[(name, text) for name, text in details if text],
        bulk_abort_url=abort_details.bulk_abort_url(abort),
    )
