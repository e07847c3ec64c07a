"""Aborts as a run's page shows them, with what is known of each and what can be done next."""

from dataclasses import dataclass
from datetime import datetime

from django.utils.translation import gettext as _

from dashboard import abort_clock, abort_story, abort_trail, database, links, support
from dashboard.abort_trail import Line
from dashboard.models import Abort, Run
from dashboard.web import act_facts
from dashboard.web.rows import Row


@dataclass(frozen=True, slots=True)
class Act:
    """One abort, its trail and its facts."""

    story: abort_story.Story
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
    text = support.text(run, latest, team=links.team(), now=database.now())
    return NextSteps(links.northflank_url(run), text)


def _act(abort: Abort, run: Run) -> Act:
    story = abort_story.of(abort, run)
    under_way = abort_clock.since(run, abort) if abort.settled_at is None else None
    facts = [
        (_("Asked for"), act_facts.came_by(abort)),
        (_("From"), abort.client_address or ""),
        *act_facts.answer(abort),
    ]
    return Act(
        story=story,
        by=abort.username,
        requested_at=abort.requested_at,
        reason=abort.reason,
        since=under_way.at if under_way else None,
        at_least=under_way is not None and under_way.at_least,
        trail=abort_trail.lines(abort, abort.events.all()),
        facts=[(name, text) for name, text in facts if text],
        batch_url=act_facts.batch_url(abort),
    )
