"""Status: can Northflank be read, by whom, with how many requests, and how old is what is shown."""

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from dashboard import access, database
from dashboard.models import ChangeCounter
from dashboard.web import context, live, status, titles


@require_safe
def show(request: HttpRequest) -> HttpResponse:
    """Show the state of the mirror, the worst first."""
    rights = access.rights(request.user)
    version = ChangeCounter.latest()
    shown = status.of(rights, database.now())
    # Its ages are told by the rows themselves.
    as_of = live.AsOf(None, stale=False)
    incomplete = bool(shown.incomplete)
    terms = live.of(
        request, rights, "status", version, shown, in_flight=False, aborting=False, as_of=as_of
    )
    if live.unchanged(request, terms):
        return live.not_modified(terms)
    blind = context.of(request).blind or not shown.verdict.sees
    title = titles.status(blind=blind, incomplete=incomplete)
    parts = {"nav": "status", "title": title, "status": shown, "as_of": as_of}
    return live.answer(request, "status.html", terms, parts)
