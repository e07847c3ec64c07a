"""Since you were away: what happened since the user's last visit, on Now and on a page of its own.

Now itself is kept for many users, so its browser requests this part.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods

from dashboard.accounts import last_visits, stars
from dashboard.accounts.identity import permissions_of, version_of
from dashboard.db import threads as db_threads
from dashboard.models import Run
from dashboard.runs import failures, news, statuses
from dashboard.runs.news import AllNews, News
from dashboard.texts.rich_text import ClockTime, Message, MessageTable, join_texts
from dashboard.web.components import my_pipelines
from dashboard.web.components.runs import row_queries
from dashboard.web.http import keys, links
from dashboard.web.http.authentication import sign_in
from dashboard.web.http.responses.htmx import is_htmx, render_page
from dashboard.web.live import event_ids

MIN_ABSENCE = timedelta(minutes=5)  # on Now; who was here just now has seen it
MAX_ROWS, MAX_ROWS_OF_PAGE = 10, 100  # of runs to which the same happened
_text = MessageTable(
    {
        "since": gettext_lazy("Since %(since)s: %(news)s"),
        "of_last_changed": gettext_lazy(
            "Since %(since)s, of the %(n)d runs that changed last: %(news)s"
        ),
        "nothing": gettext_lazy("Nothing has happened since %(since)s."),
        "unknown": gettext_lazy(
            "More than %(n)d runs have changed since %(since)s; none of the most recent ones is in "
            "your pipelines."
        ),
    }
)


@require_http_methods(["GET", "HEAD", "POST"])
def away(request: HttpRequest) -> HttpResponse:
    """Show what happened since the user's last visit, for htmx as a part of Now.

    POST records that they have seen it: `seen` is its version and time. `since` is until when they
    were at the open page that asks, in milliseconds since 1970.
    """
    user, version, now = sign_in.signed_in_user(request), version_of(request), db_threads.now()
    mine, is_part = my_pipelines.of_request(request), is_htmx(request)
    if request.method == "POST":
        seen, _, time = request.POST.get("seen", "").partition(".")
        seen_version, seen_at = keys.parse_pk(seen), _parse_time(time, now)
        if seen_version is None or seen_at is None:
            raise Http404
        last_visits.record(user, min(seen_version, version), seen_at)
        if not is_part:
            response = redirect(f"{reverse('now')}{_query(mine)}")
            response.status_code = 303
            return response
    visit = last_visits.load(user, version, now)
    was_here_until = _parse_time(request.GET.get("since", ""), now) or visit.at
    since = max(visit.at, was_here_until, now - news.MAX_AGE)
    context: dict[str, Any] = {
        "url": f"{reverse('away')}{_query(mine)}",
        "seen": event_ids.page_version(version, now),
        "is_part": is_part,
        "news": [],
    }
    if not is_part or now - since >= MIN_ABSENCE:
        user_permissions = permissions_of(request)
        if mine is not None:
            user_permissions = stars.within(user_permissions, mine)
        found = news.load(user_permissions, visit.version, since)
        context["news"] = _lists(found.news, MAX_ROWS if is_part else MAX_ROWS_OF_PAGE)
        context["text"] = _sentence(found, since, now)
    return render_page(request, "pages/away.html", "news", context)


def _query(mine: frozenset[int] | None) -> str:
    return "" if mine is None else "?mine=1"


def _parse_time(text: str, now: datetime) -> datetime | None:
    """Return a time in milliseconds since 1970, at most `now`; None if it is none."""
    milliseconds = keys.parse_pk(text)
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(min(milliseconds, event_ids.milliseconds(now)) / 1000, UTC)


def _sentence(found: AllNews, since: datetime, now: datetime) -> Message:
    time = ClockTime(since, now)
    if not found.news:
        if found.is_cut:  # of all runs: what happened to the visible ones before is not known
            return _text("unknown", since=time, n=news.MAX_CHANGED)
        return _text("nothing", since=time)
    texts = join_texts(*(news.text for news in found.news), separator=", ")
    if found.is_cut:
        return _text("of_last_changed", since=time, n=news.MAX_CHANGED, news=texts)
    return _text("since", since=time, news=texts)


def _lists(found: list[News], limit: int) -> list[dict[str, Any]]:
    """Return the runs to which the same happened, with the rows of the first `limit`."""
    pks = {pk for item in found for pk in item.runs[:limit]}
    runs = {run.pk: run for run in row_queries.load_runs(pks)} if pks else {}
    return [
        {
            "text": item.text,
            "rows": [_row(runs[pk], item) for pk in item.runs[:limit] if pk in runs],
            "more_count": max(0, len(item.runs) - limit),
        }
        for item in found
    ]


def _row(run: Run, item: News) -> dict[str, Any]:
    row = {
        "run": run,
        "url": links.run_url(run),
        "stage_urls": links.stage_urls(run.stage),
        "at": run.ended_at or run.started_at or run.created_at,
    }
    if item.leaves_status_open:
        return row | {"display": statuses.for_run(run.status, removed=run.has_unknown_end)}
    return row | {"cause": failures.describe(run)}
