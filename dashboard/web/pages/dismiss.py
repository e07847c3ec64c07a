"""Dismiss a removed run: GET shows the confirmation, POST dismisses or restores it."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods

from dashboard.accounts import permissions
from dashboard.runs import dismissals, removals
from dashboard.texts.rich_text import MessageTable, RichText
from dashboard.web.components.runs import removed_notice, run_row
from dashboard.web.http import lookup
from dashboard.web.http.authentication import sign_in

_text = MessageTable(
    {
        "dismissed": gettext_lazy("Removed from the list: no longer in flight."),
        "restored": gettext_lazy("Restored: in flight again."),
        "not_dismissible": gettext_lazy(
            "Nothing to remove: Northflank lists this run, or it has ended."
        ),
        "not_dismissed": gettext_lazy("Nothing to restore: the run was not removed from the list."),
    }
)


@require_http_methods(["GET", "HEAD", "POST"])
def dismiss(request: HttpRequest, **ids: str) -> HttpResponse:
    """Show the confirmation (GET, never changes anything), or dismiss or restore a run (POST)."""
    user_permissions = permissions.for_user(request.user)
    run = lookup.get_run_or_404(user_permissions, **ids)
    permission = user_permissions.abort_permission(run.stage)
    row = run_row.build_row(run, permission, None)
    if request.method != "POST":
        open_dismissal = run.dismissals.open().first()
        blocked_reason: RichText = "" if permission.allowed else permission.denied_reason
        if not open_dismissal and not dismissals.is_dismissible(run):
            blocked_reason = _text("not_dismissible")
        elif open_dismissal and permission.allowed:
            blocked_reason = removals.not_read_reason(run.stage.pipeline) or ""
        page_context = {
            "row": row,
            "removal": removed_notice.for_run(run),
            "open_dismissal": open_dismissal,
            "blocked_reason": blocked_reason,
        }
        return render(request, "pages/dismiss.html", page_context)
    user = sign_in.signed_in_user(request)
    try:
        if not request.POST.get("undo"):
            dismissals.dismiss(run, user)
            messages.success(request, str(_text("dismissed")), extra_tags="good")
        elif dismissals.restore(run, user):
            messages.success(request, str(_text("restored")), extra_tags="good")
        else:
            messages.info(request, str(_text("not_dismissed")), extra_tags="info")
    except dismissals.NothingToDismiss:
        messages.info(request, str(_text("not_dismissible")), extra_tags="info")
    return redirect(row.urls.page)
