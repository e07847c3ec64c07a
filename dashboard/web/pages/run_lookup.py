"""Find a run by its id alone: search the stages for it and redirect to its page."""

from dataclasses import replace

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import get_token
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST, require_safe

from dashboard.aborts.messages import ClockTime
from dashboard.accounts import permissions
from dashboard.accounts.permissions import Permissions
from dashboard.models import Run, Stage
from dashboard.runs.rich_text import format_parts
from dashboard.sync import run_lookup
from dashboard.upstream.connection import get_connection
from dashboard.web.components.elements import rich_text
from dashboard.web.components.runs import run_search
from dashboard.web.http import links, lookup
from dashboard.web.http.responses.deferred import Deferred


@require_safe
def find_run(request: HttpRequest, run_id: str) -> HttpResponse:
    """Redirect to a run's page, given its id alone, keeping the query string.

    A run not in the database is searched for; a progress page is shown meanwhile.
    """
    user_permissions = permissions.for_user(request.user)
    run = _find_visible(user_permissions, run_id)
    if run is not None:
        return run_search.reload_response(request) or _redirect_to_run(request, run.stage, run_id)
    hints = run_search.hints(request)
    hinted_stage = lookup.hinted_stage(user_permissions, hints)
    if hinted_stage is not None:  # its page looks up the run, even if the search budget is used up
        return run_search.reload_response(request) or _redirect_to_run(
            request, hinted_stage, run_id
        )
    candidates = lookup.candidate_stages(user_permissions, hints)
    if not candidates.stage_keys:
        no_stages = run_lookup.SearchProgress(0, 0)
        return _render_progress(request, user_permissions, run_id, candidates, no_stages)
    get_token(request)  # the middleware sets the CSRF cookie before the search, not after it
    return Deferred(
        lambda: run_lookup.search(get_connection(), candidates.stage_keys, run_id),
        lambda search: _render_found(request, user_permissions, run_id, candidates, search),
    )


def _render_found(
    request: HttpRequest,
    user_permissions: Permissions,
    run_id: str,
    candidates: lookup.Candidates,
    search: run_lookup.SearchProgress,
) -> HttpResponse:
    run = _find_visible(user_permissions, run_id)
    if run is not None:
        return run_search.reload_response(request) or _redirect_to_run(request, run.stage, run_id)
    return _render_progress(request, user_permissions, run_id, candidates, search)


def _render_progress(
    request: HttpRequest,
    user_permissions: Permissions,
    run_id: str,
    candidates: lookup.Candidates,
    search: run_lookup.SearchProgress,
) -> HttpResponse:
    if search.is_exhausted and lookup.is_catalog_loading(user_permissions):
        search = replace(search, blocked_reason=_("Projects are still being read from Northflank."))
    elif search.is_exhausted:
        if reload_response := run_search.reload_response(request):
            return reload_response
        raise run_search.not_found(request, user_permissions, run_id, candidates)
    return run_search.render_progress(request, user_permissions, run_id, search)


@require_POST
def retry_run_lookup(request: HttpRequest, run_id: str) -> HttpResponse:
    """Restart the lookup of a run that was not found, in the stages that the query string names.

    If it is too soon for that, redirect with a message that contains the earliest time.
    """
    user_permissions = permissions.for_user(request.user)
    hints = run_search.hints(request)
    hinted_stage = lookup.hinted_stage(user_permissions, hints)
    stages = (
        [hinted_stage.pk]
        if hinted_stage is not None
        else lookup.candidate_stages(user_permissions, hints).stage_keys
    )
    allowed_from = run_lookup.retry(stages, run_id)
    if allowed_from is not None:
        message = _("Searched just now. You can search again at %(time)s.")
        parts = format_parts(message, time=ClockTime(allowed_from, None))
        messages.info(request, rich_text(parts), extra_tags="info")
    query = request.META.get("QUERY_STRING", "")
    address = reverse("run_lookup", args=[run_id])
    return redirect(f"{address}?{query}" if query else address)


def _find_visible(user_permissions: Permissions, run_id: str) -> Run | None:
    visible = Run.objects.filter(user_permissions.stage_filter("stage"), run_id=run_id)
    return visible.with_stage().order_by("-created_at").first()


def _redirect_to_run(request: HttpRequest, stage: Stage, run_id: str) -> HttpResponse:
    address = reverse("run", args=[*links.stage_url_args(stage), run_id])
    query = request.META.get("QUERY_STRING", "")
    return redirect(f"{address}?{query}" if query else address)
