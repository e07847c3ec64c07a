"""Abort what a run has left running: GET shows the confirmation, POST requests the aborts."""

import asyncio
from dataclasses import replace

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods

from dashboard.aborts import left_running
from dashboard.aborts.left_running import LeftWork
from dashboard.aborts.request import (
    AbortResult,
    NotAllowed,
    NotInFlight,
    ReasonMissing,
    reason_required,
    request_abort,
)
from dashboard.aborts.send import wait_for_response
from dashboard.accounts.identity import permissions_of, with_identity
from dashboard.accounts.permissions import Permissions
from dashboard.models import Abort, Run
from dashboard.models.catalog import StageName
from dashboard.runs import steps
from dashboard.texts.rich_text import MessageTable
from dashboard.web.components.aborts import left_running as left_panel
from dashboard.web.components.aborts import reason_form
from dashboard.web.components.aborts.reason_form import ReasonField
from dashboard.web.http import errors, keys, links, lookup
from dashboard.web.http.responses.deferred import Deferred
from dashboard.web.http.responses.htmx import is_htmx, render_page, text_response
from dashboard.web.pages.aborts.abort import render_result, result_notice

_text = MessageTable(
    {
        "ended": gettext_lazy("It has ended; there is nothing to abort."),
        "requested": gettext_lazy("%(n)s aborts requested; how each stands is shown below."),
    }
)


@with_identity
@require_http_methods(["GET", "HEAD", "POST"])
def abort_left(
    request: HttpRequest, project_id: str, pipeline_id: str, stage_id: str, run_id: str
) -> HttpResponse:
    """Show the confirmation (GET, never aborts), or request an abort of each `work` (POST).

    A POST responds after Northflank has answered each or the wait for it has timed out.
    """
    user_permissions = permissions_of(request)
    run = lookup.get_run_or_404(user_permissions, project_id, pipeline_id, stage_id, run_id)
    works = _selected(request, run)
    if request.method != "POST":
        return _render_confirmation(request, run, works, user_permissions)
    reason = reason_form.parse(request, required=reason_required(run.stage))
    try:
        results = _request(request, run, works, reason, user_permissions)
    except NotAllowed as error:
        return errors.forbidden(request, str(error))
    except ReasonMissing as error:
        reason = replace(reason, error=str(error))
        return _render_confirmation(request, run, works, user_permissions, reason)
    if not results:
        notice = "info", str(_text("ended"))
        return render_result(request, _load(run), user_permissions, notice, None)
    return Deferred(
        lambda: asyncio.gather(*map(wait_for_response, results)),
        lambda aborts: _render_answers(request, run, aborts, user_permissions),
    )


def _selected(request: HttpRequest, run: Run) -> list[LeftWork]:
    """Return those of the request that still run; others have ended, or are not the run's."""
    values = request.POST if request.method == "POST" else request.GET
    selected = keys.parse_pks(values.getlist("work"))
    left = left_running.load(run, steps.decode(run.steps))
    works = left.works if left is not None else []
    return [found for found in works if found.work.pk in selected and found.work.in_flight]


def _request(
    request: HttpRequest,
    run: Run,
    works: list[LeftWork],
    reason: ReasonField,
    user_permissions: Permissions,
) -> list[AbortResult]:
    """Record the aborts, each like one of a run; leave out what has ended meanwhile."""
    abort_request = reason_form.abort_request(request, reason, user_permissions)
    replaced = keys.parse_pks(request.POST.getlist("again_of"))
    results = []
    for found in works:
        under_way = found.open_abort
        again_of = under_way.pk if under_way is not None and under_way.pk in replaced else None
        try:
            result = request_abort(
                run, abort_request, work=found.work, again_of_pk=again_of, mark_sent=True
            )
        except NotInFlight:
            continue
        results.append(result)
    return results


def _render_confirmation(
    request: HttpRequest,
    run: Run,
    works: list[LeftWork],
    user_permissions: Permissions,
    reason: ReasonField | None = None,
) -> HttpResponse:
    """Show the form; with a reason that has an error, as it was submitted."""
    if reason and is_htmx(request):
        return text_response(reason.error, 422)
    denied_reason = user_permissions.abort_permission(run.stage).denied_reason
    blocked_reason = denied_reason if works else _text("ended")
    page_context = {
        "run": run,
        "rows": [left_panel.row(run, found) for found in works],
        "page_url": links.run_url(run),
        "abort_url": left_panel.abort_url(run, []),
        "blocked_reason": blocked_reason,
        "warns_of_production": run.stage.name == StageName.PRODUCTION and not blocked_reason,
        "reason": reason or ReasonField(reason_required(run.stage)),
    }
    status = 422 if reason else 200
    return render_page(
        request, "pages/aborts/abort_left.html", "confirm", page_context, status=status
    )


def _render_answers(
    request: HttpRequest, run: Run, aborts: list[Abort], user_permissions: Permissions
) -> HttpResponse:
    several = "info", str(_text("requested", n=len(aborts)))
    notice = result_notice(aborts[0], request) if len(aborts) == 1 else several
    # While all are under way, the run's page tells how each stands.
    under_way = None if any(abort.settled_at for abort in aborts) else aborts[0]
    return render_result(request, _load(run), user_permissions, notice, under_way)


def _load(run: Run) -> Run:
    """Return the run as it is now: the aborts have given it a new version."""
    return Run.objects.with_stage().get(pk=run.pk)
