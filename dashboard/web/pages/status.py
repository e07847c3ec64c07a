"""Status: can Northflank be read, by whom, with how many requests, and how old is what is shown."""

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from dashboard.accounts import permissions
from dashboard.db import threads as db_threads
from dashboard.models import ChangeCounter
from dashboard.web.components import sync_report, tab_title
from dashboard.web.http import site_context
from dashboard.web.live import region as live_region


@require_safe
def show(request: HttpRequest) -> HttpResponse:
    """Show the state of the mirror, the worst first."""
    rights = permissions.rights(request.user)
    version = ChangeCounter.latest()
    shown = sync_report.of(rights, db_threads.now())
    # Its ages are told by the rows themselves.
    as_of = live_region.AsOf(None, stale=False)
    incomplete = bool(shown.incomplete)
    terms = live_region.of(
        request, rights, "status", version, shown, in_flight=False, aborting=False, as_of=as_of
    )
    if live_region.unchanged(request, terms):
        return live_region.not_modified(terms)
    blind = site_context.of(request).blind or not shown.verdict.sees
    title = tab_title.status(blind=blind, incomplete=incomplete)
    parts = {"nav": "status", "title": title, "status": shown, "as_of": as_of}
    return live_region.answer(request, "status.html", terms, parts)
