"""Search everywhere: runs, pipelines and projects by a text.

A search may read the texts of a million runs, so searches have a thread of their own: they wait for
each other, and no page or abort waits for them.
"""

import re
from collections.abc import Collection
from datetime import timedelta
from functools import cached_property, partial
from itertools import pairwise
from typing import Any
from urllib.parse import unquote, urlencode

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_safe

from dashboard.accounts.permissions import Permissions
from dashboard.db.fair_queue import FairQueue
from dashboard.models import Pipeline, Project, Run
from dashboard.runs.search import MAX_PLACES, MAX_RUNS, Search
from dashboard.texts.rich_text import Message
from dashboard.web.components.data_age import DataAge, page_data_age
from dashboard.web.components.lists import empty_states, parameters
from dashboard.web.components.runs import rendered_rows, row_queries
from dashboard.web.components.runs.row_queries import RowKey
from dashboard.web.components.tab_title import TabTitle
from dashboard.web.http.responses.htmx import is_htmx, text_response
from dashboard.web.http.responses.retry_later import refuse, when_done
from dashboard.web.live.page import LivePart, Page, page_response
from dashboard.web.live.snapshot import Snapshot

queue = FairQueue("search", places=30, group_places=2)  # a group is an account
RETRY_TIME = timedelta(seconds=2)

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
# What addresses of Northflank and of this dashboard have before a slug, by the parameter of a
# search for a run.
_PLACES = {"project": "project", "projects": "project", "pipelines": "pipeline",
           "release-flows": "stage"}  # fmt: skip


@require_safe
def search(request: HttpRequest) -> HttpResponse:
    """Show what a text finds; a run's id or address that is submitted leads to the run.

    Two searches of an account may wait. A third one takes the place of the first, which gets 429:
    while somebody types, the browser drops that response.
    """
    page = SearchPage(Snapshot.for_request(request))
    given = request.GET.get("q", "").replace("\0", "").strip()
    # While somebody types, htmx requests the results.
    if not is_htmx(request) and (address := _run_address(given, page.permissions)):
        return redirect(address)
    warnings: list[Message] = []
    page.text, page.warnings = parameters.cut_text(given, warnings), warnings
    if not page.search:
        return page_response(request, page)
    # Found on the thread of searches, rendered on one of pages.
    find = partial(queue.run, request.user.get_username(), lambda: (page.rows, page.places))
    return when_done(find, lambda _: page_response(request, page), _refuse)


def _refuse() -> HttpResponse:
    text = _("Too many searches at the same time.")
    return refuse(partial(text_response, status=429), text, 429, RETRY_TIME)


class SearchPage(Page):
    """What a text finds. An open page keeps its rows current, and adds none."""

    name = "search"
    template = "pages/search.html"
    text = ""
    warnings: Collection[Message] = ()  # about ignored parts of the text

    @cached_property
    def data_age(self) -> DataAge:
        return page_data_age(self.snapshot.report)

    @property
    def tab_title(self) -> TabTitle:
        return self.build_title(_("Search"))

    @cached_property
    def search(self) -> Search:
        return Search(self.text)

    @cached_property
    def rows(self) -> list[RowKey]:
        return row_queries.load_keys(self.search.runs(self.permissions))

    @cached_property
    def places(self) -> tuple[list[Pipeline], list[Project]]:
        return self.search.pipelines(self.permissions), self.search.projects(self.permissions)

    def context(self, request: HttpRequest) -> dict[str, Any]:
        context = {"text": self.text, "filter": self, "has_text": bool(self.search)}
        return context | self._results() if self.search else context

    def _results(self) -> dict[str, Any]:
        shown = self.rows[:MAX_RUNS]
        pipelines, projects = self.places
        is_empty = not (shown or pipelines or projects)
        return {
            "rows": list(rendered_rows.render_rows(shown, self.permissions).values()),
            "count_text": self._count_text,
            "pipelines": [
                (pipeline, reverse("pipeline", args=[pipeline.project.slug, pipeline.slug]))
                for pipeline in pipelines[:MAX_PLACES]
            ],
            "projects": [
                (project, reverse("project", args=[project.slug]))
                for project in projects[:MAX_PLACES]
            ],
            "has_more_places": max(len(pipelines), len(projects)) > MAX_PLACES,
            "board_url": f"{reverse('board')}?{urlencode({'q': self.text})}",
            "may_abort": self.permissions.can_abort_anywhere,
            "denied_reason": self.permissions.abort_denied_reasons(
                {(key.project, key.stage) for key in shown}
            ),
            "empty": empty_states.search(self.data_age, self.text, is_short=self.search.is_short)
            if is_empty
            else None,
        }

    @property
    def _count_text(self) -> str:
        count = len(self.rows)
        if count > MAX_RUNS:
            text = _("The first %(count)d runs. There are more: add a word to find others.")
            return text % {"count": MAX_RUNS}
        return ngettext("%(count)d run", "%(count)d runs", count) % {"count": count}

    def changed_parts(self, runs: Collection[Run]) -> list[LivePart]:
        return self.row_parts(runs)


def _run_address(text: str, permissions: Permissions) -> str | None:
    """Return the address that searches for a run, if a text is its id or an address with it."""
    if not text.startswith(("https://", "http://")):
        visible = Run.objects.filter(permissions.stage_filter("stage"))
        if visible.filter(run_id=text).exists():
            return reverse("run_search", args=[text])
        return reverse("run_search", args=[text.lower()]) if _UUID.fullmatch(text) else None
    segments = [unquote(segment) for segment in re.split("[?#]", text)[0].split("/")]
    following = dict(pairwise(segments))
    ids = _UUID.findall(text)
    run_id = following.get("runs") or (ids[-1] if ids else "")
    places = {_PLACES[name]: slug for name, slug in following.items() if name in _PLACES}
    return f"{reverse('run_search', args=[run_id])}?{urlencode(places)}" if run_id else None
