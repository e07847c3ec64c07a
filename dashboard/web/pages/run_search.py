"""Find a run by its id alone: search the stages for it and redirect to its page."""

from collections.abc import Mapping
from dataclasses import replace

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.http import require_safe
from django_htmx.http import HttpResponseClientRefresh

from dashboard.accounts import permissions
from dashboard.models import Stage
from dashboard.sync import requests
from dashboard.sync.requests import SearchProgress
from dashboard.texts.rich_text import ExternalText, MessageTable, join_texts
from dashboard.web.components.elements import rich_text
from dashboard.web.http import links, lookup, run_hints
from dashboard.web.http.lookup import PageNotFound
from dashboard.web.http.responses.htmx import is_htmx, render_page
from dashboard.web.http.run_hints import Candidates

# Seconds between refreshes of the progress page, while stages are read for it and afterwards.
REFRESH_SECONDS, PAUSED_REFRESH_SECONDS = 2, 15
# The same without JavaScript; longer, because a full reload interrupts the reader.
RELOAD_SECONDS, PAUSED_RELOAD_SECONDS = 5, 60
_text = MessageTable(
    {
        "other_location": gettext_lazy(
            "The address of run “%(run)s” names another location: %(place)s."
        ),
        "not_found": gettext_lazy("Run “%(run)s” not found."),
        "not_in_stages": lambda n: ngettext(
            "It is not among the newest 100 runs of the one stage searched.",
            "It is not among the newest 100 runs of any of the %(n)s stages searched.",
            n,
        ),
        "may_be_deleted": gettext_lazy("It may have been deleted, or the link is incomplete."),
    }
)


@require_safe
def run_search(request: HttpRequest, run_id: str) -> HttpResponse:
    """Redirect to a run's page, given its id alone, keeping the query string.

    A run not in the database, or not where the query string says, is searched for; a progress page
    is shown meanwhile.
    """
    user_permissions = permissions.for_user(request.user)
    hints = run_hints.of_request(request)

    def find_stage(likely: Mapping[str, str]) -> Stage | None:
        run = run_hints.find_run(user_permissions, likely, run_id)
        # Its page reads the run, even if the search budget is used up.
        return run.stage if run else run_hints.hinted_stage(user_permissions, likely)

    if stage := find_stage(hints):
        return _reload_response(request) or _redirect_to_run(request, stage, run_id)
    candidates = run_hints.candidate_stages(user_permissions, hints)
    likely = hints if candidates.is_narrowed else run_hints.NO_HINTS
    stage, progress = find_stage(likely), SearchProgress(0, 0)
    if stage is None and candidates.stage_keys:
        progress = requests.search(candidates.stage_keys, run_id)
        # It may have been read while this page was made.
        stage = find_stage(likely) if progress.is_found else None
    if stage is not None:
        return _reload_response(request) or _redirect_to_run(request, stage, run_id)
    if progress.is_exhausted and lookup.is_catalog_loading(user_permissions):
        reason = _("Projects are still being read from Northflank.")
        progress = replace(progress, blocked_reason=reason)
    elif progress.is_exhausted:
        if reload_response := _reload_response(request):
            return reload_response
        raise _not_found(run_id, candidates)
    return _progress_response(request, run_id, progress)


def _not_found(run_id: str, candidates: Candidates) -> PageNotFound:
    """Return the 404 for a finished search: the stages searched, and a link to continue."""
    n = len(candidates.stage_keys)
    message = join_texts(
        _text("not_found", run=run_id),
        _text("not_in_stages", n=n) if n else "",
        _text("may_be_deleted"),
    )
    return PageNotFound(message, *([lookup.search_link(run_id)] if candidates.is_narrowed else []))


def _progress_response(request: HttpRequest, run_id: str, search: SearchProgress) -> HttpResponse:
    """Render the progress of a search; the page refreshes itself."""
    is_paused = bool(search.blocked_reason or search.planned_at)
    template_context = {
        "run_id": run_id,
        "search": search,
        "page_url": request.get_full_path(),
        "seconds": PAUSED_REFRESH_SECONDS if is_paused else REFRESH_SECONDS,
        "reload_seconds": PAUSED_RELOAD_SECONDS if is_paused else RELOAD_SECONDS,
    }
    return render_page(request, "pages/run_search.html", "live", template_context)


def _redirect_to_run(request: HttpRequest, stage: Stage, run_id: str) -> HttpResponse:
    """Redirect to a run, with a notice if it is not where the query string says."""
    hints = run_hints.of_request(request)
    # A HEAD request shows no page, and the next page would have its notice.
    if request.method != "HEAD" and not run_hints.matches_hints(stage, hints):
        place = " / ".join(filter(None, hints.values()))
        text = _text("other_location", run=ExternalText(run_id), place=ExternalText(place))
        messages.warning(request, rich_text(text), extra_tags="warning")
    address = reverse("run", args=[*links.stage_url_args(stage), run_id])
    query = request.META.get("QUERY_STRING", "")
    return redirect(f"{address}?{query}" if query else address)


def _reload_response(request: HttpRequest) -> HttpResponse | None:
    """Return a response that reloads an open progress page, or None for any other request.

    The reload redirects to the run or shows why it was not found.
    """
    return HttpResponseClientRefresh() if is_htmx(request) else None
