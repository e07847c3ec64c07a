"""Acknowledge a run, hand it back, or take it over from somebody."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from dashboard.accounts import permissions
from dashboard.models import Run
from dashboard.runs import acknowledgements
from dashboard.web.http import keys, links, lookup
from dashboard.web.http.authentication import sign_in
from dashboard.web.http.responses.htmx import is_htmx, text_response
from dashboard.web.pages.run import RunCard


@require_http_methods(["GET", "HEAD", "POST"])
def acknowledge(request: HttpRequest, **ids: str) -> HttpResponse:
    """Render the user's form (GET), or acknowledge, take over or hand back (POST)."""
    user_permissions = permissions.for_user(request.user)
    run = lookup.get_run_or_404(user_permissions, **ids)
    user = sign_in.signed_in_user(request)
    if request.method != "POST":
        if not is_htmx(request):
            return redirect(links.run_url(run))
        card = RunCard.load(run, user_permissions, user.pk)
        return HttpResponse(card.render(request, "acknowledgement-form"))
    try:
        match request.POST.get("action"):
            case "hand_back":
                acknowledgements.hand_back(run, user)
            case "take_over":
                acknowledgements.acknowledge(
                    run, user, take_over_from=keys.parse_pks(request.POST.getlist("take_over_from"))
                )
            case _:
                acknowledgements.acknowledge(run, user)
    except acknowledgements.NothingToAcknowledge:
        return _render_conflict(request, run)
    if not is_htmx(request):
        return redirect(links.run_url(run))
    return HttpResponse(RunCard.load(run, user_permissions, user.pk).render(request))


def _render_conflict(request: HttpRequest, run: Run) -> HttpResponse:
    text = _("This run no longer needs attention.")
    if is_htmx(request):
        return text_response(text, 409)
    messages.info(request, text, extra_tags="info")
    return redirect(links.run_url(run))
