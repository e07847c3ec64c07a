"""Aborts as a run's page shows them, with what is known of each and what can be done next."""

from dataclasses import dataclass
from datetime import datetime

from django.utils.translation import gettext as _

from dashboard.aborts import messages as abort_messages
from dashboard.aborts import support_request
from dashboard.aborts import timeline as abort_timeline
from dashboard.aborts.timeline import Line
from dashboard.db import threads as db_threads
from dashboard.models import Abort, Run
from dashboard.runs import abort_clock
from dashboard.web.components import abort_details
from dashboard.web.components.run_row import Row
from dashboard.web.http import links


@dataclass(frozen=True, slots=True)
class Act:
    """One abort, its trail and its facts."""

    story: abort_messages.Story
    by: str
    requested_at: datetime
    reason: str
    since: datetime | None
    at_least: bool
    trail: list[Line]
    facts: list[tuple[str, str]]
    batch_url: str  # of the list that it belongs to; empty: it was asked for by itself


@dataclass(frozen=True, slots=True)
class NextSteps:
    """What people can do about an abort that does not end."""

    northflank_url: str
    support_text: str


def acts(run: Run, aborts: list[Abort]) -> list[Act]:
    """Prepare the aborts of one run for the template, each with its trail."""
    return [_act(abort, run) for abort in aborts]


def of_run(run: Run) -> list[Abort]:
    """Return a run's aborts with their trails, the latest first."""
    return list(run.aborts.order_by("-pk").prefetch_related("events"))


def next_steps(run: Run, row: Row, aborts: list[Abort]) -> NextSteps | None:
    """Return what can be done, where an abort of the run is so long overdue."""
    if not row.again:
        return None
    latest = aborts[0] if aborts and aborts[0].settled_at is None else None
    text = support_request.text(run, latest, team=links.team(), now=db_threads.now())
    return NextSteps(links.northflank_url(run), text)


def _act(abort: Abort, run: Run) -> Act:
    story = abort_messages.of(abort, run)
    under_way = abort_clock.since(run, abort) if abort.settled_at is None else None
    facts = [
        (_("Asked for"), abort_details.came_by(abort)),
        (_("From"), abort.client_address or ""),
        *abort_details.answer(abort),
    ]
    return Act(
        story=story,
        by=abort.username,
        requested_at=abort.requested_at,
        reason=abort.reason,
        since=under_way.at if under_way else None,
        at_least=under_way is not None and under_way.at_least,
        trail=abort_timeline.lines(abort, abort.events.all()),
        facts=[(name, text) for name, text in facts if text],
        batch_url=abort_details.batch_url(abort),
    )
