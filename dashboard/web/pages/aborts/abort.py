"""Abort a run, or what its abort has left running: GET shows the confirmation, POST aborts."""

import asyncio
from dataclasses import replace
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.loader import render_to_string
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods

from dashboard.aborts import left_running
from dashboard.aborts import messages as abort_messages
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
from dashboard.accounts.permissions import Permission, Permissions
from dashboard.db import threads as db_threads
from dashboard.models import Abort, Run
from dashboard.models.catalog import StageName
from dashboard.runs import concurrency, removals, steps
from dashboard.sync import watchers
from dashboard.texts.rich_text import MessageTable, RichText, join_texts
from dashboard.web.components.aborts import abort_history, reason_form
from dashboard.web.components.aborts import left_running as left_panel
from dashboard.web.components.aborts.reason_form import ReasonField
from dashboard.web.components.elements import rich_text
from dashboard.web.components.runs import rendered_rows, run_row
from dashboard.web.http import errors, keys, links, lookup
from dashboard.web.http.responses.deferred import Deferred
from dashboard.web.http.responses.htmx import is_htmx, render_page, text_response
from dashboard.web.pages.run import RunCard

_text = MessageTable(
    {
        "ended": gettext_lazy("This run has ended; there is nothing to abort."),
        "ended_meanwhile": gettext_lazy("The run had already ended; nothing was sent."),
        "end_unknown_meanwhile": gettext_lazy("Nothing was sent. %(why)s"),
        "left_ended": gettext_lazy("It has ended; there is nothing to abort."),
        "requested": gettext_lazy("%(n)s aborts requested; how each stands is shown below."),
        "requested_by": gettext_lazy("Abort requested by %(who)s."),
    }
)


@with_identity
@require_http_methods(["GET", "HEAD", "POST"])
def abort(
    request: HttpRequest,
    project_id: str,
    pipeline_id: str,
    stage_id: str,
    run_id: str,
    *,
    of_left: bool = False,
) -> HttpResponse:
    """Show the confirmation (GET, never aborts), or request the abort (POST).

    `of_left`: of each `work` of the request, which the run has left running. A POST responds after
    Northflank has answered or the wait for its answer has timed out.
    """
    user_permissions = permissions_of(request)
    run = lookup.get_run_or_404(user_permissions, project_id, pipeline_id, stage_id, run_id)
    works = _selected(request, run) if of_left else None
    if request.method != "POST":
        # Not as the dialog opens: what the read changes would replace the button that opens it.
        if not of_left and (request.GET.get("facts") == "read" or not is_htmx(request)):
            watchers.watch_run(run, db_threads.now())  # its detail is read, unless just done
        return _render_confirmation(request, run, works, user_permissions)
    reason = reason_form.parse(request, required=reason_required(run.stage))
    try:
        results = _request(request, run, works, reason, user_permissions)
    except NotAllowed as error:
        return errors.forbidden(request, str(error))
    except ReasonMissing as error:
        reason = replace(reason, error=str(error))
        return _render_confirmation(request, run, works, user_permissions, reason)
    if results:
        return Deferred(
            lambda: asyncio.gather(*map(wait_for_response, results)),
            lambda aborts: _render_answer(request, aborts, user_permissions),
        )
    if of_left:
        run, notice = _load(run), ("info", str(_text("left_ended")))
    else:
        notice = _not_in_flight_notice(run)
    return _render_result(request, run, user_permissions, notice, None)


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
    works: list[LeftWork] | None,
    reason: ReasonField,
    user_permissions: Permissions,
) -> list[AbortResult]:
    """Record the aborts; leave out what has ended meanwhile."""
    abort_request = reason_form.abort_request(request, reason, user_permissions)
    # The aborts after which the form aborts again, by what they abort.
    replaced = Abort.every.filter(run=run, pk__in=keys.parse_pks(request.POST.getlist("again_of")))
    again_of = {abort.work_id: abort.pk for abort in replaced}
    results = []
    for work in [None] if works is None else [found.work for found in works]:
        again_of_pk = again_of.get(work.pk if work is not None else None)
        try:
            result = request_abort(
                run, abort_request, work=work, again_of_pk=again_of_pk, mark_sent=True
            )
        except NotInFlight:
            continue
        results.append(result)
    return results


def _render_confirmation(
    request: HttpRequest,
    run: Run,
    works: list[LeftWork] | None,
    user_permissions: Permissions,
    reason: ReasonField | None = None,
) -> HttpResponse:
    """Show the form; with a reason that has an error, as it was submitted."""
    # The dialog stays open and shows the error; without htmx the filled-in form is rendered again.
    if reason and is_htmx(request):
        return text_response(reason.error, 422)
    if works is None:
        context = _context_of_run(run, user_permissions) | {"view": request.GET.get("view", "")}
    else:
        context = _context_of_left(run, works, user_permissions.abort_permission(run.stage))
    context |= {
        "run": run,
        "page_url": links.run_url(run),
        "warns_of_production": run.stage.name == StageName.PRODUCTION
        and not context["blocked_reason"],
        "reason": reason or ReasonField(reason_required(run.stage)),
    }
    status = 422 if reason else 200
    return render_page(request, "pages/aborts/abort.html", "confirm", context, status=status)


def _context_of_run(run: Run, user_permissions: Permissions) -> dict[str, Any]:
    permission = user_permissions.abort_permission(run.stage)
    run_aborts = abort_history.load_aborts(run)
    related_runs = concurrency.load_related_runs(run, user_permissions.stage_filter("stage"), None)
    open_abort = next((abort for abort in run_aborts if abort.settled_at is None), None)
    row = run_row.build_row(run, permission, run_aborts[0] if run_aborts else None)
    blocked_reason: RichText = ""
    if not run.in_flight:
        blocked_reason = _not_in_flight_reason(run, permission)
    elif not row.is_abortable and row.abort_line is not None:
        blocked_reason = row.abort_line.message.text
    elif not permission.allowed:
        blocked_reason = permission.denied_reason
    return {
        "left": None,
        "row": row,
        "abort_url": row.urls.abort,
        "blocked_reason": blocked_reason,
        "shown_abort": row.abort_line if open_abort and not blocked_reason else None,
        "again_of": [open_abort.pk] if open_abort and row.is_abort_again_offered else [],
        "running_now": left_panel.running_now(run) if run.in_flight else (),
        "blocks_count": len(related_runs.blocks),
        "skipped_meanwhile": related_runs.skipped_text,
    }


def _context_of_left(run: Run, works: list[LeftWork], permission: Permission) -> dict[str, Any]:
    again = [found.open_abort for found in works if found.is_abort_again_offered]
    return {
        "left": [left_panel.row(run, found) for found in works],
        "abort_url": left_panel.abort_url(run, []),
        "blocked_reason": permission.denied_reason if works else _text("left_ended"),
        "again_of": [abort.pk for abort in again if abort is not None],
        "view": "card",
    }


def _not_in_flight_reason(run: Run, permission: Permission) -> RichText:
    """Return why a run that is not in flight cannot be aborted."""
    if not run.has_unknown_end:
        return _text("ended")
    # Whoever may not abort it may not restore it either.
    return removals.unknown_end_reason(run) if permission.allowed else permission.denied_reason


def _not_in_flight_notice(run: Run) -> tuple[str, str]:
    """Return tone and text of the answer to an abort of a run that was not in flight."""
    if not run.has_unknown_end:
        return "info", str(_text("ended_meanwhile"))
    return "warning", str(_text("end_unknown_meanwhile", why=removals.unknown_end_reason(run)))


def _render_answer(
    request: HttpRequest, aborts: list[Abort], user_permissions: Permissions
) -> HttpResponse:
    # While all are under way, the run's page tells how each stands.
    shown_abort = next((abort for abort in aborts if abort.settled_at), aborts[0])
    run = shown_abort.run if shown_abort.work_id is None else _load(shown_abort.run)
    if len(aborts) > 1:
        notice = "info", str(_text("requested", n=len(aborts)))
    else:
        notice = _result_notice(shown_abort, request)
    return _render_result(request, run, user_permissions, notice, shown_abort)


def _load(run: Run) -> Run:
    """Return a run as it is now: aborts of what it has left have given it a new version."""
    return Run.objects.with_stage().get(pk=run.pk)


def _result_notice(abort: Abort, request: HttpRequest) -> tuple[str, str]:
    """Return tone and text of the answer to an abort."""
    message = abort_messages.describe(abort, abort.run)
    is_by_other_user = abort.username != request.user.get_username()
    requested_by = _text("requested_by", who=abort.username) if is_by_other_user else ""
    # A run's "aborted" badge is neutral, but for the requesting user it is a success.
    return (
        "good" if message.tone == "neutral" else message.tone,
        rich_text(join_texts(message.text, requested_by)),
    )


def _render_result(
    request: HttpRequest,
    run: Run,
    user_permissions: Permissions,
    notice: tuple[str, str],
    abort: Abort | None,
) -> HttpResponse:
    """Return the response to an abort: its notice, and the run as it is now."""
    # `abort` is the run's latest if it is open; after a settled one another may follow.
    open_abort = abort if abort is not None and abort.settled_at is None else None
    tone, text = notice
    if not is_htmx(request):
        messages.add_message(request, messages.INFO, text, extra_tags=tone)
        return redirect(links.run_url(run))
    run_html = _render_run(request, run, user_permissions)
    notice_html = ""
    # The run's own page tells in its header how its open abort stands.
    if open_abort is None or request.POST.get("view") != "card":
        # While the abort is open, its notice is bound to the run and hidden when the run concludes.
        notice_run_dom_id = run_row.dom_id(run.run_id) if open_abort else ""
        notice_context = {"notice": {"tone": tone, "text": text, "run_dom_id": notice_run_dom_id}}
        notice_html = render_to_string("components/notices.html#notice", notice_context)
    # htmx skips the run's partial if the page no longer shows the run.
    return HttpResponse(
        f'<hx-partial hx-target="#{run_row.dom_id(run.run_id)}" hx-swap="outerMorph">{run_html}'
        '</hx-partial><hx-partial hx-target="#notices" hx-swap="innerHTML">'
        f"{notice_html}</hx-partial>"
    )


def _render_run(request: HttpRequest, run: Run, user_permissions: Permissions) -> str:
    # The element with the run's id is a card on the run's own page and a row on all others.
    if request.POST.get("view") == "card":
        return RunCard.load(run, user_permissions).render(request)
    return rendered_rows.render_loaded([run], user_permissions)[run.pk]
