"""Saying that one looks at a run, hands it back, or takes it over: for everybody to see."""

from django.contrib import messages
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from dashboard import access, looking
from dashboard.models import Run
from dashboard.web import acts, errors, keys, places, rows
from dashboard.web.views.runs import card


@require_http_methods(["GET", "HEAD", "POST"])
def look(request: HttpRequest, project: str, pipeline: str, stage: str, run: str) -> HttpResponse:
    """Show what the person can say (GET, for the page that asks), or note what they say (POST)."""
    rights = access.rights(request.user)
    of = places.stage(rights, project, pipeline, stage)
    shown = places.run(of, run)
    if shown is None:
        raise places.no_run(of, run)
    if request.method != "POST":
        return _answer(request, shown, rights, "run.html#choice")
    person: User = request.user  # type: ignore[assignment]  # signed in: see sign_in.py
    try:
        match request.POST.get("say"):
            case "stop":
                looking.stop(shown, person)
            case "take_over":
                looking.begin(
                    shown, person, instead_of=keys.among(request.POST.getlist("instead_of"))
                )
            case _:
                looking.begin(shown, person)
    except looking.NotAllowed as refused:
        return errors.forbidden(request, str(refused))
    except looking.NothingToLookAt:
        return _too_late(request, shown)
    return _answer(request, shown, rights, "run.html#card")


def _answer(request: HttpRequest, shown: Run, rights: access.Rights, template: str) -> HttpResponse:
    if request.headers.get("HX-Request") != "true":
        return redirect(_page_of(shown))
    parts = card(shown, rights, acts.of_run(shown), request.user.pk)
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
    return reverse("run", args=[*rows.place_args(run.stage), run.run_id])
