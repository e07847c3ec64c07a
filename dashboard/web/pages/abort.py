"""Aborting a run: GET asks, POST acts."""

from dataclasses import replace
from urllib.parse import unquote, urlsplit

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.cache import patch_vary_headers
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from dashboard import aborts
from dashboard.aborts import messages as abort_messages
from dashboard.accounts import permissions
from dashboard.accounts.permissions import Rights
from dashboard.db.threads import now
from dashboard.models import Abort, Run
from dashboard.models.catalog import StageName
from dashboard.runs import acknowledgements, concurrency
from dashboard.web.components import abort_history, progress_bar, reason_form, run_row
from dashboard.web.components.reason_form import ReasonField
from dashboard.web.http import errors, keys, lookup
from dashboard.web.http.deferred import Waiting, result_of
from dashboard.web.pages.run import card


@require_http_methods(["GET", "HEAD", "POST"])
def abort(request: HttpRequest, project: str, pipeline: str, stage: str, run: str) -> HttpResponse:
    """Ask for confirmation (GET, never acts), or abort and answer what Northflank said (POST)."""
    rights = permissions.rights(request.user)
    of = lookup.stage(rights, project, pipeline, stage)
    shown = lookup.run(of, run)
    if shown is None:
        raise lookup.no_run(of, run)
    if request.method != "POST":
        return _ask(request, shown, rights)
    done = result_of(request)
    if done is not None:
        return _answer(request, shown, rights, _told(Abort.objects.get(pk=done), request))
    required = aborts.reason_required(of)
    reason = reason_form.read(request, required=required)
    try:
        press = reason_form.press(request, reason)
        pressed = aborts.request(shown, press, again=_again(request))
    except aborts.NotAllowed as refused:
        return errors.forbidden(request, str(refused))
    except aborts.ReasonMissing as missing:
        return _reason_missing(request, shown, rights, replace(reason, error=str(missing)))
    except aborts.NotInFlight:
        ended = ("info", _("The run had already ended; nothing was sent."))
        return _answer(request, shown, rights, ended)
    return Waiting(lambda: aborts.answered(pressed))


def _again(request: HttpRequest) -> int | None:
    """Return the key of the abort that this press tries again, as the form said."""
    return keys.read(request.POST.get("again", ""))


def _reason_missing(
    request: HttpRequest, shown: Run, rights: Rights, reason: ReasonField
) -> HttpResponse:
    # The dialog keeps what was typed and shows the sentence; the page is filled in again.
    if request.headers.get("HX-Request") == "true":
        return HttpResponse(reason.error, status=422, content_type="text/plain; charset=utf-8")
    return _ask(request, shown, rights, reason, status=422)


def _ask(
    request: HttpRequest,
    shown: Run,
    rights: Rights,
    reason: ReasonField | None = None,
    status: int = 200,
) -> HttpResponse:
    may = rights.may_abort(shown.stage)
    its_aborts = abort_history.of_run(shown)
    near = concurrency.near(shown, rights.places("stage"), None)
    under_way = next((abort for abort in its_aborts if abort.settled_at is None), None)
    row = run_row.row(shown, may, its_aborts[0] if its_aborts else None)
    cannot: abort_messages.Said = ""
    if not shown.in_flight:
        cannot = _("This run has ended; there is nothing to abort.")
    elif not row.abortable and row.abort is not None:
        cannot = row.abort.story.said
    elif not may.allowed:
        cannot = may.why_not
    parts = {
        "row": row,
        "cannot": cannot,
        "under_way": under_way,
        "behind": len(near.behind),
        "swallowed": near.swallowed_in_words,
        "production": shown.stage.name == StageName.PRODUCTION,
        "reason": reason or ReasonField(aborts.reason_required(shown.stage)),
    }
    htmx = request.headers.get("HX-Request") == "true"
    template = "abort.html#confirm" if htmx else "abort.html"
    response = render(request, template, parts, status=status)
    patch_vary_headers(response, ["HX-Request"])
    response["Cache-Control"] = "no-store"
    return response


def _told(abort: Abort, request: HttpRequest) -> tuple[str, str]:
    act = abort_messages.of(abort, abort.run)
    joined = abort.username != request.user.get_username()
    by = _("It was requested by %(who)s.") % {"who": abort.username} if joined else ""
    # On the run "aborted" is no colour; as news of what one asked for it is good.
    return "good" if act.tone == "neutral" else act.tone, f"{act.sentence} {by}".strip()


def _answer(
    request: HttpRequest, shown: Run, rights: Rights, notice: tuple[str, str]
) -> HttpResponse:
    tone, text = notice
    if request.headers.get("HX-Request") != "true":
        messages.add_message(request, messages.INFO, text, extra_tags=tone)
        return redirect(reverse("run", args=[*run_row.place_args(shown.stage), shown.run_id]))
    its_aborts = abort_history.of_run(shown)
    element = _element(request, shown, rights, its_aborts)
    # One that says “not yet” leaves when the run has concluded.
    about = run_row.dom_id(shown.run_id) if shown.aborts.open().exists() else ""
    parts = {"notice": {"tone": tone, "text": text, "about": about}}
    told = render_to_string("notices.html#notice", parts)
    # The run may have left the page that it was aborted from: its part is skipped there.
    return HttpResponse(
        f'<hx-partial hx-target="#{run_row.dom_id(shown.run_id)}" hx-swap="outerMorph">{element}'
        f'</hx-partial><hx-partial hx-target="#notices" hx-swap="innerHTML">{told}</hx-partial>'
    )


def _element(request: HttpRequest, shown: Run, rights: Rights, its_aborts: list[Abort]) -> str:
    # The element under the run's id is a card on its own page and a row on all others.
    own_page = reverse("run", args=[*run_row.place_args(shown.stage), shown.run_id])
    here = urlsplit(request.headers.get("HX-Current-URL", "")).path
    if unquote(here) == unquote(own_page):
        return render_to_string("run.html#card", card(shown, rights, its_aborts), request)
    may = rights.may_abort(shown.stage)
    clocks = progress_bar.clocks_of([shown])[shown.pk] if shown.in_flight else ()
    looks = acknowledgements.now_at([shown], now()).get(shown.pk, ())
    return run_row.html(shown, may, its_aborts[0] if its_aborts else None, clocks, looks)
