"""Aborting many runs: GET asks and freezes the list, POST acts, and a page tells of each run."""

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
from dashboard.models import AbortBatch, ChangeCounter
from dashboard.web.components import abort_all, reason_form
from dashboard.web.components import bulk_abort_result as batches
from dashboard.web.components.abort_all import Asked
from dashboard.web.components.reason_form import ReasonField
from dashboard.web.http import errors, keys, site_context
from dashboard.web.http.deferred import Waiting, result_of
from dashboard.web.http.lookup import NothingHere
from dashboard.web.live import region as live_region


@require_http_methods(["GET", "HEAD", "POST"])
def abort_many(request: HttpRequest) -> HttpResponse:
    """Ask for confirmation (GET, never acts), or abort one after another (POST)."""
    rights = permissions.rights(request.user)
    if request.method != "POST":
        return _ask(request, abort_all.asked(abort_all.chosen(request, rights), rights))
    begun = result_of(request)
    if begun is not None:
        return _lead_to(request, begun)
    asked = abort_all.asked(keys.among(request.POST.getlist("run")), rights)
    reason = reason_form.read(request, required=asked.reason_required)
    try:
        key = UUID(request.POST.get("key", ""))
    except ValueError:
        return _again(request, asked, reason, _("This question is not complete. Ask it again."))
    try:
        batch = aborts.request_many(
            keys.among(request.POST.getlist("run")), reason_form.press(request, reason), key
        )
    except aborts.NotAllowed as refused:
        return errors.forbidden(request, str(refused))
    except aborts.NotInFlight:
        return _again(request, asked, reason, _("No run is selected."), key)
    except (aborts.ReasonMissing, aborts.TooMany) as missing:
        return _again(request, asked, reason, str(missing), key)
    return Waiting(lambda: aborts.begin(batch.pk))


@require_safe
def batch(request: HttpRequest, pk: int) -> HttpResponse:
    """Show what became of each run of a list."""
    rights = permissions.rights(request.user)
    version = ChangeCounter.latest()
    its = batches.items(pk, rights)
    if not its:
        raise NothingHere(_("No such list of aborts is known here."))
    shown: AbortBatch = its[0].batch
    as_of = live_region.as_of([item.run.stage for item in its])
    item_rows = batches.item_rows(its)
    summary = batches.summary(shown, item_rows, db_threads.now())
    terms = live_region.of(
        request,
        rights,
        "batch",
        version,
        summary,
        key=pk,
        in_flight=not summary.over,
        aborting=not summary.over,
        as_of=as_of,
    )
    if live_region.unchanged(request, terms):
        return live_region.not_modified(terms)
    parts = {
        "nav": "aborts",
        "title": batches.title(item_rows, blind=site_context.of(request).blind),
        "batch": shown,
        "items": item_rows,
        "summary": summary,
        "as_of": as_of,
    }
    return live_region.answer(request, "batch.html", terms, parts)


def _ask(
    request: HttpRequest,
    asked: Asked,
    reason: ReasonField | None = None,
    key: UUID | None = None,
    status: int = 200,
) -> HttpResponse:
    parts = {
        "nav": "now",
        "asked": asked,
        # The whole filter was asked for, not what is on the screen.
        "whole": request.method != "POST" and "run" not in request.GET,
        "key": key or uuid4(),
        "reason": reason or ReasonField(asked.reason_required),
    }
    htmx = request.headers.get("HX-Request") == "true"
    template = "many.html#confirm" if htmx else "many.html"
    response = render(request, template, parts, status=status)
    patch_vary_headers(response, ["HX-Request"])
    response["Cache-Control"] = "no-store"
    return response


def _again(
    request: HttpRequest, asked: Asked, reason: ReasonField, why: str, key: UUID | None = None
) -> HttpResponse:
    # The dialog keeps what was typed and shows the sentence; the page is filled in again.
    if request.headers.get("HX-Request") == "true":
        return HttpResponse(why, status=422, content_type="text/plain; charset=utf-8")
    return _ask(request, asked, replace(reason, error=why), key, status=422)


def _lead_to(request: HttpRequest, batch_pk: int) -> HttpResponse:
    address = reverse("batch", args=[batch_pk])
    if request.headers.get("HX-Request") == "true":
        return HttpResponse(headers={"HX-Redirect": address})
    response = redirect(address)
    response.status_code = 303
    return response
