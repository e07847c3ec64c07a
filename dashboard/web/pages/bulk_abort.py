"""Abort several runs at once: confirmation, request, and a page with the result of each run."""

from dataclasses import replace
from uuid import UUID, uuid4

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.cache import patch_vary_headers
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_safe

from dashboard import aborts
from dashboard.accounts import permissions
from dashboard.db import threads as db_threads
from dashboard.models import BulkAbort, ChangeCounter
from dashboard.web.components import abort_all, reason_form
from dashboard.web.components import bulk_abort_result as batches
from dashboard.web.components.abort_all import BulkAbortConfirmation
from dashboard.web.components.reason_form import ReasonField
from dashboard.web.http import errors, keys, site_context
from dashboard.web.http.deferred import Deferred, deferred_result
from dashboard.web.http.lookup import PageNotFound
from dashboard.web.live import region


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
    bulk_abort_pk = deferred_result(request)
    if bulk_abort_pk is not None:
        return _redirect_to_bulk_abort(request, bulk_abort_pk)
    selection = abort_all.prepare_confirmation(
        keys.parse_pks(request.POST.getlist("run")), user_permissions
    )
    reason = reason_form.parse(request, required=selection.is_reason_required)
    try:
        key = UUID(request.POST.get("key", ""))
    except ValueError:
        return _render_form_error(
            request, selection, reason, _("This question is not complete. Ask it again.")
        )
    try:
        bulk_abort = aborts.request_bulk_abort(
            keys.parse_pks(request.POST.getlist("run")),
            reason_form.abort_request(request, reason),
            key,
        )
    except aborts.NotAllowed as error:
        return errors.forbidden(request, str(error))
    except aborts.NotInFlight:
        return _render_form_error(request, selection, reason, _("No run is selected."), key)
    except (aborts.ReasonMissing, aborts.TooManyRuns) as error:
        return _render_form_error(request, selection, reason, str(error), key)
    return Deferred(lambda: aborts.start_bulk_abort(bulk_abort.pk))


@require_safe
def bulk_abort(request: HttpRequest, pk: int) -> HttpResponse:
    """Show a bulk abort and the outcome of each of its runs."""
    user_permissions = permissions.for_user(request.user)
    version = ChangeCounter.latest()
    items = batches.visible_items(pk, user_permissions)
    if not items:
        raise PageNotFound(_("No such list of aborts is known here."))
    bulk_abort: BulkAbort = items[0].bulk_abort
    data_age = region.stages_data_age([item.run.stage for item in items])
    item_rows = batches.item_rows(items)
    summary = batches.summary(bulk_abort, item_rows, db_threads.now())
    live_region = region.build_region(
        request,
        user_permissions,
        "bulk_abort",
        version,
        summary,
        key=pk,
        in_flight=not summary.is_finished,
        aborting=not summary.is_finished,
        data_age=data_age,
    )
    if region.is_unchanged(request, live_region):
        return region.not_modified(live_region)
    page_context = {
        "nav": "aborts",
        "tab_title": batches.build_tab_title(
            item_rows, upstream_down=site_context.for_request(request).upstream_down
        ),
        "bulk_abort": bulk_abort,
        "items": item_rows,
        "summary": summary,
        "data_age": data_age,
    }
    return region.render_page(request, "pages/bulk_abort.html", live_region, page_context)


def _render_confirmation(
    request: HttpRequest,
    selection: BulkAbortConfirmation,
    reason: ReasonField | None = None,
    key: UUID | None = None,
    status: int = 200,
) -> HttpResponse:
    page_context = {
        "nav": "now",
        "selection": selection,
        # All runs that match a filter were requested, including runs that the page does not show.
        "is_whole_filter": request.method != "POST" and "run" not in request.GET,
        "key": key or uuid4(),
        "reason": reason or ReasonField(selection.is_reason_required),
    }
    is_htmx = request.headers.get("HX-Request") == "true"
    template = (
        "pages/bulk_abort_confirm.html#confirm" if is_htmx else "pages/bulk_abort_confirm.html"
    )
    response = render(request, template, page_context, status=status)
    patch_vary_headers(response, ["HX-Request"])
    response["Cache-Control"] = "no-store"
    return response


def _render_form_error(
    request: HttpRequest,
    selection: BulkAbortConfirmation,
    reason: ReasonField,
    message: str,
    key: UUID | None = None,
) -> HttpResponse:
    # The dialog stays open and shows the error; without htmx the filled-in form is rendered again.
    if request.headers.get("HX-Request") == "true":
        return HttpResponse(message, status=422, content_type="text/plain; charset=utf-8")
    return _render_confirmation(request, selection, replace(reason, error=message), key, status=422)


def _redirect_to_bulk_abort(request: HttpRequest, bulk_abort_pk: int) -> HttpResponse:
    address = reverse("bulk_abort", args=[bulk_abort_pk])
    if request.headers.get("HX-Request") == "true":
        return HttpResponse(headers={"HX-Redirect": address})
    response = redirect(address)
    response.status_code = 303
    return response
