"""Search again for a run that was not found."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_POST

from dashboard.accounts import permissions
from dashboard.sync import requests
from dashboard.texts.rich_text import ClockTime, MessageTable
from dashboard.web.components.elements import rich_text
from dashboard.web.http import run_hints

_text = MessageTable(
    {"too_soon": gettext_lazy("Searched just now. You can search again at %(time)s.")}
)


@require_POST
def run_search_again(request: HttpRequest, run_id: str) -> HttpResponse:
    """Search again in the stages that the query string names, or in all.

    If it is too soon for that, redirect with a message that contains the earliest time.
    """
    user_permissions = permissions.for_user(request.user)
    hints = run_hints.of_request(request)
    hinted_stage = run_hints.hinted_stage(user_permissions, hints)
    is_possible = hinted_stage or run_hints.candidate_stages(user_permissions, hints).stage_keys
    allowed_from = requests.search_again(run_id, hinted_stage) if is_possible else None
    if allowed_from is not None:
        text = _text("too_soon", time=ClockTime(allowed_from, None))
        messages.info(request, rich_text(text), extra_tags="info")
    query = request.META.get("QUERY_STRING", "")
    address = reverse("run_search", args=[run_id])
    return redirect(f"{address}?{query}" if query else address)
