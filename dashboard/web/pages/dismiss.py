"""Dismissing a run that Northflank knows no more: GET asks, POST acts."""

from django.contrib import messages
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from dashboard.accounts import permissions
from dashboard.runs import dismissals
from dashboard.web.components import removed_notice, run_row
from dashboard.web.http import errors, lookup


@require_http_methods(["GET", "HEAD", "POST"])
def dismiss(
    request: HttpRequest, project: str, pipeline: str, stage: str, run: str
) -> HttpResponse:
    """Ask for confirmation (GET, never acts); dismiss a run, or undo that (POST)."""
    rights = permissions.rights(request.user)
    of = lookup.stage(rights, project, pipeline, stage)
    shown = lookup.run(of, run)
    if shown is None:
        raise lookup.no_run(of, run)
    may = rights.may_abort(of)
    row = run_row.row(shown, may, None)
    if request.method != "POST":
        dismissed = shown.dismissals.open().first()
        cannot = "" if may.allowed else may.why_not
        if not dismissed and not dismissals.can_be_dismissed(shown):
            cannot = _nothing()
        parts = {
            "row": row,
            "gone": removed_notice.run(shown),
            "dismissed": dismissed,
            "cannot": cannot,
        }
        return render(request, "dismiss.html", parts)
    person: User = request.user  # type: ignore[assignment]  # signed in: see sign_in.py
    try:
        if request.POST.get("undo"):
            dismissals.undo(shown, person)
            messages.success(request, _("It counts as in flight again."), extra_tags="good")
        else:
            dismissals.dismiss(shown, person)
            messages.success(request, _("It no longer counts as in flight."), extra_tags="good")
    except dismissals.NotAllowed as refused:
        return errors.forbidden(request, str(refused))
    except dismissals.NothingToDismiss:
        messages.info(request, _nothing(), extra_tags="info")
    return redirect(row.url)


def _nothing() -> str:
    return _("Northflank knows this run, or it has ended; there is nothing to dismiss.")
