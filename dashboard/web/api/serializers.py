"""How a run and an abort look in JSON, to the API's callers and by the commands.

Fields are added, never renamed or taken away. Times are UTC.
"""

from datetime import UTC, datetime
from typing import Any

from django.urls import reverse

from dashboard.aborts import messages as abort_messages
from dashboard.aborts import timeline as abort_timeline
from dashboard.accounts.permissions import Rights
from dashboard.db import threads as db_threads
from dashboard.models import Abort, Run
from dashboard.runs import acknowledgements
from dashboard.sync.coverage import Coverage
from dashboard.web.components import run_row
from dashboard.web.http import links


def run(of: Run, latest: Abort | None, by: Rights | None = None) -> dict[str, Any]:
    """Return a run; with what whoever looks at it may do, where that is known."""
    pipeline = of.stage.pipeline
    shown = {
        "run_id": of.run_id,
        "name": of.name,
        "project": pipeline.project.slug,
        "pipeline": pipeline.slug,
        "stage": of.stage.name,
        "status": of.status,
        "concluded": of.concluded,
        "in_flight": of.in_flight,
        "step": of.step if of.in_flight else "",
        "created_at": _utc(of.created_at),
        "started_at": _utc(of.started_at),
        "concluded_at": _utc(of.concluded_at),
        "seen_at": _utc(of.seen_at),
        "gone_at": _utc(of.gone_at),
        "url": links.whole(path_of(of)),
        "abort": abort(latest, of) if latest is not None else None,
    }
    if by is not None:
        shown["may_abort"] = of.in_flight and by.may_abort(of.stage).allowed
    return shown


def abort(of: Abort, run: Run) -> dict[str, Any]:
    """Return an act as it stands."""
    return {
        "id": of.pk,
        "state": of.state,
        "sentence": abort_messages.of(of, run).sentence,
        "by": of.username,
        "via": of.via,
        "token": of.token_name,
        "reason": of.reason,
        "requested_at": _utc(of.requested_at),
        "sent_at": _utc(of.sent_at),
        "sendings": of.sendings,
        "answered_at": _utc(of.answered_at),
        "answer": of.answer,
        "answer_status": of.answer_status,
        "error_id": of.error_id,
        "retry_at": _utc(of.retry_at),
        "outcome": of.outcome,
        "settled_at": _utc(of.settled_at),
    }


def aborts(of: Run) -> list[dict[str, Any]]:
    """Return all acts on a run, the latest first, each with its trail."""
    acts = of.aborts.order_by("-pk").prefetch_related("events")
    return [
        abort(act, of)
        | {
            "trail": [
                {"at": _utc(line.at), "text": line.text}
                for line in abort_timeline.lines(act, act.events.all())
            ]
        }
        for act in acts
    ]


def lookings(of: Run) -> list[dict[str, Any]]:
    """Return who looks at a run, or has, in the order in which they began."""
    return [
        {
            "by": one.username,
            "since": _utc(one.since),
            "until": _utc(one.until),
            "taken_over_by": one.taken_over_by,
        }
        for one in acknowledgements.of_run(of, db_threads.now())
    ]


def complete(known: Coverage) -> dict[str, Any]:
    """Return what stands beside a list: whether all was looked at, and what was not."""
    return {
        "complete": known.complete,
        "coverage": {
            "stages": known.total,
            "unread": known.unread,
            "failing": known.failing,
            "unlisted": known.lists,
            "seconds_left": None if known.seconds_left is None else round(known.seconds_left),
            "sentence": known.text,
        },
    }


def dismissals(of: Run) -> list[dict[str, Any]]:
    """Return who dismissed a run that Northflank knew no more, the first first."""
    return [
        {
            "by": one.username,
            "at": _utc(one.at),
            "undone_at": _utc(one.undone_at),
            "undone_by": one.undone_by,
        }
        for one in of.dismissals.all()
    ]


def path_of(run: Run) -> str:
    """Return the path of a run's page."""
    return reverse("run", args=[*run_row.place_args(run.stage), run.run_id])


def _utc(when: datetime | None) -> datetime | None:
    return when.astimezone(UTC) if when else None
