"""One stage: the runs of its release flow."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.functional import SimpleLazyObject
from django.views.decorators.http import require_safe

from dashboard.accounts import permissions
from dashboard.db.threads import now
from dashboard.models import Abort, ChangeCounter
from dashboard.runs import concurrency_policy, saved_views
from dashboard.sync import watchers
from dashboard.web.components import (
    abort_all,
    empty_states,
    filters,
    history_charts,
    in_flight,
    pagination,
    removed_notice,
    run_row,
    saved_view_menu,
    tab_title,
)
from dashboard.web.http import lookup, sign_in, site_context
from dashboard.web.live import region as live_region


@require_safe
def stage(request: HttpRequest, project: str, pipeline: str, stage: str) -> HttpResponse:
    """Show a stage's runs: in flight on top, then newest first."""
    person, rights = sign_in.person(request), permissions.rights(request.user)
    version = ChangeCounter.latest()
    shown = lookup.stage(rights, project, pipeline, stage)
    # An address that asks for anything is left alone, and so is a page that is open already.
    refresh = request.headers.get("HX-Request") == "true"
    default = None if refresh else saved_views.default_of(person)
    if default and not request.GET:
        return redirect(f"{request.path}?{default.query}")
    watchers.in_stage(shown, now())
    as_of = live_region.as_of_place([shown])
    its_place = removed_notice.place(shown.pipeline)
    flying = in_flight.flights(shown.runs.in_flight())
    terms = live_region.of(
        request,
        rights,
        "stage",
        version,
        its_place,
        key=shown.pk,
        in_flight=bool(flying),
        aborting=bool(flying) and Abort.objects.open().filter(run__stage=shown).exists(),
        as_of=as_of,
    )
    if live_region.unchanged(request, terms):
        return live_region.not_modified(terms)
    asked = filters.read(request.GET, shown, person)
    status = asked.only_status
    page = pagination.page(shown.runs.all(), asked)
    of_page = shown.runs.filter(pk__in=page.keys).newest_first()
    blind = site_context.of(request).blind
    ids = run_row.place_args(shown)
    parts = {
        "title": tab_title.stage(
            shown,
            in_flight.together(flying.values()),
            blind=blind,
            incomplete=bool(as_of.incomplete),
        ),
        "place": {
            "project": shown.pipeline.project.name,
            "pipeline": shown.pipeline.name,
            "pipeline_url": reverse("pipeline", args=ids[:2]),
            "stage": shown.name,
            "project_id": ids[0],
            "pipeline_id": ids[1],
            "stage_id": ids[2],
        },
        "gone": its_place,
        "facts": concurrency_policy.facts(shown),
        "key": shown.pk,
        "strip": history_charts.strips([shown])[shown.pk],
        "filter": asked,
        "all_url": filters.ALL_RUNS,
        "stage_error": live_region.error_of(shown),
        # Outside of the live region: a refresh does not ask for them.
        "views": SimpleLazyObject(lambda: saved_view_menu.of(person, rights, asked, default)),
        "may_abort": rights.may_abort(shown).allowed,
        "all": None if status is None else abort_all.all_of_stage(rights, shown).get(status),
        "why_not": rights.why_not([shown] if flying else []),
        "rows": run_row.html_of(of_page, rights).values(),
        "empty": empty_states.no_flow()
        if shown.has_flow is False
        else empty_states.runs(as_of, asked, page),
        "pager": page,
        "as_of": as_of,
    }
    return live_region.answer(request, "stage.html", terms, parts)
