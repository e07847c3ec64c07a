"""The messages about a run or the dashboard itself: title, text, address, and the same as data.

Names, errors and reasons in them are written by others. They are plain text, and nothing in them
mentions anybody or hides a link, whatever program shows them.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Literal

from django.db.models import Q
from django.urls import reverse
from django.utils.translation import gettext_lazy

from dashboard.aborts import left_running
from dashboard.aborts import messages as abort_messages
from dashboard.db import threads as db_threads
from dashboard.models import Abort, CatalogSync, Run, Stage
from dashboard.models.notices import NoticeEvent, NoticeMessage
from dashboard.northflank import Node
from dashboard.runs import concurrency, statuses, steps, summary, waiting_for
from dashboard.runs.log_fields import absolute_url, run_fields
from dashboard.sync.reports import report
from dashboard.sync.webhooks import status as webhook_status
from dashboard.texts.local_time import format_full
from dashboard.texts.rich_text import ExternalText, MessageTable, RichText, to_text

MAX_LENGTH = 1_500  # characters of a text; Discord takes 2,000 of all
# What makes a mention in Slack or Discord, and what joins the halves of a link in Markdown: an
# invisible character after it takes its effect.
_MARKUP = re.compile(r"[@<]|\](?=\()")
_WORD_JOINER = "\u2060"
# Controls, and what turns the direction of the text after it.
_CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_OVER_KEYS = {
    NoticeEvent.APPROVAL: "over_approval",
    NoticeEvent.OVERDUE: "over_overdue",
    NoticeEvent.FAR_OVERDUE: "over_overdue",
}
_EVERYTHING = Q()
_text = MessageTable(
    {
        "title": gettext_lazy("%(what)s: %(run)s in %(project)s"),
        "asked": gettext_lazy("Asked for by %(who)s."),
        "left_unread": gettext_lazy("What the abort has left running is not read yet."),
        "test": gettext_lazy("Test of the channel %(channel)s"),
        "test_by": gettext_lazy("Sent by %(who)s from the dashboard of release flows."),
        # What is over: of a run that goes on, and of the dashboard itself.
        "over_approval": gettext_lazy("No longer waiting for approval"),
        "over_overdue": gettext_lazy("No longer overdue"),
        "over_abort": gettext_lazy("No longer aborting"),
        "over_sync_down": gettext_lazy("Northflank can be read again"),
        "over_webhooks_down": gettext_lazy("Webhooks arrive again"),
        "over_behind_plan": gettext_lazy("Updates are back on schedule"),
    }
)


def of_run(
    run: Run,
    event: NoticeEvent,
    now: datetime,
    *,
    is_over: bool = False,
    requesters: Sequence[str] = (),
) -> NoticeMessage:
    """Return the message about a run, loaded with its stage; neither saved nor for a channel yet.

    `requesters` are the users who asked to be told of its end.
    """
    root = steps.decode(run.steps)
    timing = concurrency.load_timing(run)
    related = concurrency.load_related_runs(run, _EVERYTHING, timing)
    headline = summary.build(run, root, timing, related)
    abort = Abort.objects.filter(run=run).order_by("-pk").first()
    lines = [
        to_text(headline, now),
        *map(str, waiting_for.dated_lines(run, waiting_for.load(run, root))),
        *abort_messages.dated_lines(run, [abort] if abort else []),
        *_left_lines(run, root),
    ]
    if requesters:
        lines.append(str(_text("asked", who=", ".join(requesters))))
    name, project = ExternalText(run.title), ExternalText(str(run.stage.pipeline.project))
    title = str(_text("title", what=_label(run, event, is_over), run=name, project=project))
    fields = run_fields(run)
    data = {
        "run": {
            "id": run.run_id,
            "name": run.name,
            "project": fields["project"],
            "pipeline": fields["pipeline"],
            "stage": fields["stage"],
            "status": run.status,
            "concluded": run.concluded,
            "created_at": run.created_at.isoformat(),
            "ended_at": run.ended_at.isoformat() if run.ended_at else None,
            "blocks": len(related.blocks),
        },
        "abort": None
        if abort is None
        else {
            "by": abort.username,
            "reason": abort.reason,
            "requested_at": abort.requested_at.isoformat(),
            "state": abort.state,
        },
    }
    message = _message(event, title, lines, fields["url"], now, is_over=is_over, **data)
    message.run = run
    return message


def of_dashboard(event: NoticeEvent, now: datetime, *, is_over: bool = False) -> NoticeMessage:
    """Return the message about one of DASHBOARD_EVENTS, with what Health says of it now."""
    title = str(_text(f"over_{event}") if is_over else event.label)
    if event == NoticeEvent.WEBHOOKS_DOWN:
        state: RichText = webhook_status.load(now).message
    else:
        lists = CatalogSync.objects.listed()
        health = report.load(Stage.objects.listed(), lists, now).health
        since, until = (format_full(at) if at else "" for at in (health.since, health.until))
        state = health.sentence(since, until)
    url = absolute_url(reverse("health"))
    return _message(event, title, [to_text(state, now)], url, now, is_over=is_over)


def of_test(channel: str, username: str) -> NoticeMessage:
    """Return a test of a channel, which a user has asked for, not saved yet."""
    title = str(_text("test", channel=channel))
    line = str(_text("test_by", who=ExternalText(username)))
    url = absolute_url(reverse("notices"))
    message = _message("", title, [line], url, db_threads.now())
    message.channel = channel
    return message


def _label(run: Run, event: NoticeEvent, is_over: bool) -> str:
    """Return what has happened, for the title: how the run has ended, or else the event."""
    if not run.is_tracked and event != NoticeEvent.ABORT_OTHERWISE:
        return str(statuses.for_run(run.status, removed=run.has_unknown_end).label)
    return str(_text(_OVER_KEYS.get(event, "over_abort")) if is_over else event.label)


def _left_lines(run: Run, root: Node | None) -> Iterator[str]:
    if left := left_running.load(run, root):
        yield from (str(left_running.dated_line(found.work)) for found in left.works)
        if left.is_being_read:
            yield str(_text("left_unread"))


def _message(
    event: NoticeEvent | Literal[""],  # empty: a test
    title: str,
    lines: Sequence[str],
    url: str,
    at: datetime,
    *,
    is_over: bool = False,
    **data: Any,
) -> NoticeMessage:
    title, text = _CONTROLS.sub("", title), _CONTROLS.sub("", "\n".join(lines))
    text = text if len(text) <= MAX_LENGTH else f"{text[: MAX_LENGTH - 1]}…"
    payload = {
        "event": event or "test",
        "over": is_over,
        "at": at.isoformat(),
        "title": title,
        "text": text,
        "url": url,
        "run": None,
        "abort": None,
        **data,
    }
    return NoticeMessage(
        event=event,
        is_over=is_over,
        title=_without_markup(title),
        body=f"{_without_markup(text)}\n{url}",
        url=url,
        payload=payload,
        created_at=at,
        next_try_at=at,
    )


def _without_markup(text: str) -> str:
    return _MARKUP.sub(rf"\g<0>{_WORD_JOINER}", text)
