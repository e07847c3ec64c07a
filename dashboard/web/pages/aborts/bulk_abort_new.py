"""Abort several runs at once: GET shows the confirmation, POST requests the aborts."""

from dataclasses import replace
from uuid import UUID, uuid4

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods
from django_htmx.http import HttpResponseClientRedirect

from dashboard.aborts.bulk_request import (
    MAX_RUNS_WITHOUT_COUNT,
    TooManyRuns,
    WrongCount,
    request_bulk_abort,
)
from dashboard.aborts.bulk_send import start_bulk_abort
from dashboard.aborts.request import NotAllowed, NotInFlight, ReasonMissing
from dashboard.accounts import permissions
from dashboard.web.components.aborts import abort_all, reason_form
from dashboard.web.components.aborts.abort_all import BulkAbortConfirmation
from dashboard.web.components.aborts.reason_form import ReasonField
from dashboard.web.http import errors, keys
from dashboard.web.http.responses.deferred import Deferred
from dashboard.web.http.responses.htmx import is_htmx, render_page, text_response


@require_http_methods(["GET", "HEAD", "POST"])
def bulk_abort_new(request: HttpRequest) -> HttpResponse:
    """Show the confirmation (GET, never aborts), or start a bulk abort (POST).

    The confirmation fixes the list of runs. Its aborts are then sent one after another.
    """
    user_permissions = permissions.for_user(request.user)
    if request.method != "POST":
        return _render_confirmation(
            request,
            abort_all.prepare_confirmation(
                abort_all.selected_run_keys(request, user_permissions), user_permissions
            ),
        )
    run_keys = keys.parse_pks(request.POST.getlist("run"))
    selection = abort_all.prepare_confirmation(run_keys, user_permissions)
    reason = reason_form.parse(request, required=selection.is_reason_required)
    try:
        key = UUID(request.POST.get("key", ""))
    except ValueError:
        text = _("The form is incomplete. Open it again.")
        return _render_confirmation(request, selection, reason, error=text)
    try:
        bulk_abort = request_bulk_abort(
            run_keys,
            reason_form.abort_request(request, reason),
            key,
            typed_count=request.POST.get("count", "").strip(),
        )
    except NotAllowed as error:
        return errors.forbidden(request, str(error))
    except (NotInFlight, ReasonMissing, TooManyRuns) as error:
        return _render_confirmation(request, selection, reason, key, error=str(error))
    except WrongCount as error:
        return _render_confirmation(
            request, selection, reason, key, error=str(error), field="count"
        )
    return Deferred(
        lambda: start_bulk_abort(bulk_abort.pk),
        lambda pk: _redirect_to_bulk_abort(request, pk),
    )


def _render_confirmation(
    request: HttpRequest,
    selection: BulkAbortConfirmation,
    reason: ReasonField | None = None,
    key: UUID | None = None,
    *,
    error: str = "",
    field: str = "",
) -> HttpResponse:
    """Show the form; with the error of a field (empty: the reason), as it was submitted."""
    # The dialog stays open and shows the error; without htmx the filled-in form is rendered again.
    if error and is_htmx(request):
        return text_response(error, 422, field=field)
    reason = reason or ReasonField(selection.is_reason_required)
    page_context = {
        "selection": selection,
        # All runs that match a filter were requested, including runs that the page does not show.
        "is_whole_filter": request.method != "POST" and "run" not in request.GET,
        "key": key or uuid4(),
        "reason": reason if field else replace(reason, error=error),
        "max_runs_without_count": MAX_RUNS_WITHOUT_COUNT,
        "typed_count": request.POST.get("count", ""),
        "count_error": error if field else "",
    }
    template = "pages/aborts/bulk_abort_new.html"
    return render_page(request, template, "confirm", page_context, status=422 if error else 200)


def _redirect_to_bulk_abort(request: HttpRequest, bulk_abort_pk: int) -> HttpResponse:
    address = reverse("bulk_abort", args=[bulk_abort_pk])
    if is_htmx(request):
        return HttpResponseClientRedirect(address)
    response = redirect(address)
    response.status_code = 303
    return response
