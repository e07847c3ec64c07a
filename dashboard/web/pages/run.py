"""A run's page (status, steps, aborts, acknowledgements), and the lookup of a run by its id."""

from dataclasses import replace
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import get_token
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST, require_safe

from dashboard.accounts import permissions
from dashboard.db.threads import now
from dashboard.models import Abort, ChangeCounter, Run, Stage
from dashboard.runs import acknowledgements, concurrency, dismissals, overdue
from dashboard.runs import summary as run_summary
from dashboard.sync import run_lookup, watchers
from dashboard.upstream.connection import get_connection
from dashboard.web.components import (
    abort_history,
    acknowledged_by,
    history_charts,
    incident_summary,
    related_runs,
    removed_notice,
    run_row,
    run_search,
    tab_title,
    timeline,
)
from dashboard.web.http import links, lookup, site_context
from dashboard.web.http.deferred import Deferred, deferred_result
from dashboard.web.live import region


@require_safe
def run(
    request: HttpRequest, project_id: str, pipeline_id: str, stage_id: str, run_id: str
) -> HttpResponse:
    """Show a run. A run not in the database is first looked up, once for all users."""
    user_permissions = permissions.for_user(request.user)
    version = ChangeCounter.latest()
    stage = lookup.get_stage_or_404(user_permissions, project_id, pipeline_id, stage_id)
    run = lookup.find_run(stage, run_id)
    if run is None:
        return _look_up_run(request, user_permissions, stage, run_id)
    watchers.watch_run(run, now())
    data_age = region.run_data_age(run)
    run_aborts = abort_history.load_aborts(run)
    live_region = region.build_region(
        request,
        user_permissions,
        "run",
        version,
        removed_notice.for_run(run),
        key=run.pk,
        in_flight=run.in_flight or run.next_detail_sync_at is not None,
        aborting=any(abort.settled_at is None for abort in run_aborts),
        data_age=data_age,
    )
    if region.is_unchanged(request, live_region):
        return region.not_modified(live_region)
    title = tab_title.run(run, upstream_down=site_context.for_request(request).upstream_down)
    page_context = {
        **run_card_context(run, user_permissions, run_aborts, request.user.pk),
        "now": now(),
        "tab_title": title,
        "stage_key": stage.pk,
        "chart": history_charts.render_charts([stage], marked_run=run.pk)[stage.pk],
    }
    return region.render_page(request, "pages/run.html", live_region, page_context)


@require_safe
def find_run(request: HttpRequest, run_id: str) -> HttpResponse:
    """Redirect to a run's page, given its id alone, keeping the query string.

    A run not in the database is searched for; a progress page is shown meanwhile.
    """
    user_permissions = permissions.for_user(request.user)
    visible_runs = (
        Run.objects.filter(user_permissions.stage_filter("stage"))
        .with_stage()
        .filter(run_id=run_id)
    )
    run = visible_runs.order_by("-created_at").first()
    if run is not None:
        return run_search.reload_response(request) or _redirect_to_run(request, run.stage, run_id)
    hints = run_search.hints(request)
    hinted_stage = lookup.hinted_stage(user_permissions, hints)
    if hinted_stage is not None:  # its page looks up the run, even if the search budget is used up
        return run_search.reload_response(request) or _redirect_to_run(
            request, hinted_stage, run_id
        )
    candidates = lookup.candidate_stages(user_permissions, hints)
    search = deferred_result(request) if candidates.stage_keys else run_lookup.SearchProgress(0, 0)
    if search is None:
        get_token(request)  # see _look_up_run
        return Deferred(lambda: run_lookup.search(get_connection(), candidates.stage_keys, run_id))
    if search.is_exhausted and lookup.is_catalog_loading(user_permissions):
        search = replace(search, blocked_reason=_("Northflank’s projects are still being listed."))
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
        message = _("It was looked for just now. It can be looked for again at %(time)s.")
        time = f"{timezone.localtime(allowed_from):%H:%M:%S}"
        messages.info(request, message % {"time": time}, extra_tags="info")
    query = request.META.get("QUERY_STRING", "")
    address = reverse("run_lookup", args=[run_id])
    return redirect(f"{address}?{query}" if query else address)


def run_card_context(
    run: Run,
    user_permissions: permissions.Permissions,
    run_aborts: list[Abort],
    user_pk: int | None = None,
) -> dict[str, Any]:
    """Return the template context of a run's card.

    Without `user_pk` the context is the same for all users with these permissions; the page then
    fetches the user's own acknowledgement form separately.
    """
    root = timeline.load_tree(run)
    timing = concurrency.load_timing(run)
    related = concurrency.load_related_runs(run, user_permissions.stage_filter("stage"), timing)
    clocks = overdue.timers(run, root, timing)
    permission = user_permissions.abort_permission(run.stage)
    run_acknowledgements = acknowledgements.history(run, now())
    current_acknowledgements = [one for one in run_acknowledgements if one.ended_at is None]
    row = run_row.build_row(
        run, permission, run_aborts[0] if run_aborts else None, clocks, current_acknowledgements
    )
    headline = run_summary.build(
        run,
        root,
        timing,
        queued_ahead=len(related.queued_ahead),
        queued_behind=len(related.queued_behind),
        skip_summary=related.skip_summary,
    )
    run_dismissals = list(run.dismissals.all()) if run.removed_at else []
    url = links.absolute_url(row.url)
    return {
        "now": None,  # None: the card may be cached, so its texts contain no elapsed times
        "data_age": region.run_data_age(run),
        "row": row,
        "run_summary": headline,
        "incident_summary": incident_summary.build(
            run, root, timing, headline, related, run_aborts, run_acknowledgements, url=url
        ),
        "removal": removed_notice.for_run(run),
        "is_dismissible": dismissals.is_dismissible(run),
        "is_dismissed": any(one.restored_at is None for one in run_dismissals),
        "dismissals": run_dismissals,
        "acknowledgements": acknowledged_by.panel(
            run, row.acknowledge_url, run_acknowledgements, now()
        ),
        "is_shared": user_pk is None,
        "acknowledgement_form": acknowledged_by.actions(
            run, user_pk, user_permissions, run_acknowledgements
        )
        if user_pk
        else None,
        "description": run.description,
        "aborts": abort_history.entries(run, run_aborts),
        "next_steps": abort_history.next_steps(run, row, run_aborts),
        "related_runs": related_runs.panel(run, related),
        "timeline": timeline.build_timeline(run, root, timing, now()),
        "steps_missing": timeline.missing_text(run, root),
        "northflank_url": links.northflank_url(run),
    }


def _redirect_to_run(request: HttpRequest, stage: Stage, run_id: str) -> HttpResponse:
    address = reverse("run", args=[*run_row.stage_url_args(stage), run_id])
    query = request.META.get("QUERY_STRING", "")
    return redirect(f"{address}?{query}" if query else address)


def _look_up_run(
    request: HttpRequest, user_permissions: permissions.Permissions, stage: Stage, run_id: str
) -> HttpResponse:
    removal = removed_notice.for_pipeline(stage.pipeline)
    message = removal.text if removal is not None else deferred_result(request)
    if message is None and stage.has_flow is not False:
        # The middleware sets the CSRF cookie on the first pass only (see deferred.py), and the
        # page rendered on the second pass needs it.
        get_token(request)
        user_pk = request.user.pk
        return Deferred(
            lambda: run_lookup.find_in_stage(get_connection(), stage, run_id, user_pk=user_pk)
        )
    raise run_search.not_found_in_stage(stage, user_permissions, run_id, message or "")
