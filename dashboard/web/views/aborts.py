"""Aborting a run: GET asks, POST acts."""

from ipaddress import ip_address
from urllib.parse import unquote, urlsplit

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.cache import patch_vary_headers
from django.views.decorators.http import require_http_methods

from dashboard import aborting, access
from dashboard.models import Abort, Run
from dashboard.web import acts, errors, places, rows
from dashboard.web.places import NothingHere
from dashboard.web.views.runs import card
from dashboard.web.waiting import Waiting, result_of


@require_http_methods(["GET", "HEAD", "POST"])
def abort(request: HttpRequest, project: str, pipeline: str, stage: str, run: str) -> HttpResponse:
    """Ask for confirmation (GET, never acts), or abort and answer what Northflank said (POST)."""
    of = places.stage(project, pipeline, stage)
    shown = places.run(of, run)
    if shown is None:
        raise NothingHere(
            f"No run “{run}” is known in {of}.",
            (f"The runs of {of}", reverse("stage", args=rows.place_args(of))),
        )
    if request.method != "POST":
        return _ask(request, shown)
    done = result_of(request)
    if done is not None:
        return _answer(request, shown, _told(Abort.objects.get(pk=done), request))
    try:
        pressed = aborting.request(
            shown,
            request.user,  # type: ignore[arg-type]  # signed in: see sign_in.py
            reason=request.POST.get("reason", ""),
            client_address=_client_address(request),
        )
    except aborting.NotAllowed as refused:
        return errors.forbidden(request, str(refused))
    except aborting.NotInFlight:
        return _answer(request, shown, ("info", "The run had already ended; nothing was sent."))
    return Waiting(lambda: aborting.answered(pressed))


def _client_address(request: HttpRequest) -> str | None:
    # Behind a proxy this is what the proxy passed on, so it may be anything.
    try:
        return str(ip_address(request.META.get("REMOTE_ADDR", "")))
    except ValueError:
        return None


def _ask(request: HttpRequest, shown: Run) -> HttpResponse:
    may = access.may_abort(request.user, shown.stage)
    under_way = shown.aborts.open().first()
    cannot = ""
    if not shown.in_flight:
        cannot = "This run has ended; there is nothing to abort."
    elif under_way is not None:
        cannot = acts.act(under_way).sentence
    elif shown.status == "aborting":
        cannot = "Northflank is aborting this run already."
    elif not may.allowed:
        cannot = may.why_not
    parts = {"row": rows.row(shown, may, under_way), "cannot": cannot}
    htmx = request.headers.get("HX-Request") == "true"
    response = render(request, "abort.html#confirm" if htmx else "abort.html", parts)
    patch_vary_headers(response, ["HX-Request"])
    response["Cache-Control"] = "no-store"
    return response


def _told(abort: Abort, request: HttpRequest) -> tuple[str, str]:
    act = acts.act(abort)
    joined = abort.username != request.user.get_username()
    by = f" It was requested by {abort.username}." if joined else ""
    # On the run "aborted" is no colour; as news of what one asked for it is good.
    return "good" if act.tone == "neutral" else act.tone, act.sentence + by


def _answer(request: HttpRequest, shown: Run, notice: tuple[str, str]) -> HttpResponse:
    tone, text = notice
    if request.headers.get("HX-Request") != "true":
        messages.add_message(request, messages.INFO, text, extra_tags=tone)
        return redirect(reverse("run", args=[*rows.place_args(shown.stage), shown.run_id]))
    may = access.may_abort(request.user, shown.stage)
    its_aborts = list(shown.aborts.order_by("-requested_at"))
    element = _element(request, shown, may, its_aborts)
    # One that says “not yet” leaves when the run has concluded.
    about = rows.dom_id(shown.run_id) if shown.aborts.open().exists() else ""
    parts = {"notice": {"tone": tone, "text": text, "about": about}}
    told = render_to_string("notices.html#notice", parts)
    # The run may have left the page that it was aborted from: its part is skipped there.
    return HttpResponse(
        f'<hx-partial hx-target="#{rows.dom_id(shown.run_id)}" hx-swap="outerMorph">{element}'
        f'</hx-partial><hx-partial hx-target="#notices" hx-swap="innerHTML">{told}</hx-partial>'
    )


def _element(request: HttpRequest, shown: Run, may: access.Verdict, its_aborts: list[Abort]) -> str:
    # The element under the run's id is a card on its own page and a row on all others.
    own_page = reverse("run", args=[*rows.place_args(shown.stage), shown.run_id])
    here = urlsplit(request.headers.get("HX-Current-URL", "")).path
    if unquote(here) == unquote(own_page):
        return render_to_string("run.html#card", card(shown, may, its_aborts), request)
    return rows.html(shown, may, its_aborts[0] if its_aborts else None)
