"""Saying that one looks at a run, hands it back, or takes it over: for everybody to see."""

from django.contrib import messages
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from dashboard.accounts import permissions
from dashboard.models import Run
from dashboard.runs import acknowledgements
from dashboard.web.components import abort_history, run_row
from dashboard.web.http import errors, keys, lookup
from dashboard.web.pages.run import card


@require_http_methods(["GET", "HEAD", "POST"])
def look(request: HttpRequest, project: str, pipeline: str, stage: str, run: str) -> HttpResponse:
    """Show what the person can say (GET, for the page that asks), or note what they say (POST)."""
    rights = permissions.rights(request.user)
    of = lookup.stage(rights, project, pipeline, stage)
    shown = lookup.run(of, run)
    if shown is None:
        raise lookup.no_run(of, run)
    if request.method != "POST":
        return _answer(request, shown, rights, "run.html#choice")
    person: User = request.user  # type: ignore[assignment]  # signed in: see sign_in.py
    try:
        match request.POST.get("say"):
            case "stop":
                acknowledgements.stop(shown, person)
            case "take_over":
                acknowledgements.begin(
                    shown, person, instead_of=keys.among(request.POST.getlist("instead_of"))
                )
            case _:
                acknowledgements.begin(shown, person)
    except acknowledgements.NotAllowed as refused:
        return errors.forbidden(request, str(refused))
    except acknowledgements.NothingToLookAt:
        return _too_late(request, shown)
    return _answer(request, shown, rights, "run.html#card")


def _answer(
    request: HttpRequest, shown: Run, rights: permissions.Rights, template: str
) -> HttpResponse:
    if request.headers.get("HX-Request") != "true":
        return redirect(_page_of(shown))
    parts = card(shown, rights, abort_history.of_run(shown), request.user.pk)
    response = render(request, template, parts)
    response["Cache-Control"] = "no-store"
    return response


def _too_late(request: HttpRequest, shown: Run) -> HttpResponse:
    text = _("Nobody has to look at this run any more.")
    if request.headers.get("HX-Request") == "true":
        return HttpResponse(text, status=409, content_type="text/plain; charset=utf-8")
    messages.info(request, text, extra_tags="info")
    return redirect(_page_of(shown))


def _page_of(run: Run) -> str:
    return reverse("run", args=[*run_row.place_args(run.stage), run.run_id])
