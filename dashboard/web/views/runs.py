"""One run: how it stands, at which step, and what was done about it."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import get_token
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_safe

from dashboard import access, links, verdict
from dashboard.database import now
from dashboard.models import Abort, ChangeCounter, Run, Stage
from dashboard.sync import interest, lookup
from dashboard.upstream import connection
from dashboard.web import acts, context, live, places, rows, steps, titles
from dashboard.web.places import NothingHere
from dashboard.web.waiting import Waiting, result_of


@require_safe
def run(request: HttpRequest, project: str, pipeline: str, stage: str, run: str) -> HttpResponse:
    """Show a run; one that was never seen is first asked for, once for everybody."""
    version = ChangeCounter.latest()
    of = places.stage(project, pipeline, stage)
    shown = places.run(of, run)
    if shown is None:
        return _never_seen(request, of, run)
    interest.in_run(shown, now())
    may = access.may_abort(request.user, of)
    as_of = live.as_of_run(shown)
    its_aborts = list(shown.aborts.order_by("-requested_at"))
    terms = live.of(
        request,
        "run",
        version,
        may,
        key=shown.pk,
        in_flight=shown.in_flight or shown.next_read_at is not None,
        aborting=any(abort.settled_at is None for abort in its_aborts),
        as_of=as_of,
    )
    if live.unchanged(request, terms):
        return live.not_modified(terms)
    title = titles.run(shown, blind=context.of(request).blind)
    parts = {**card(shown, may, its_aborts), "title": title, "as_of": as_of}
    return live.answer(request, "run.html", terms, parts)


@require_safe
def find(request: HttpRequest, run: str) -> HttpResponse:
    """Lead to a run from its id alone, query string and all."""
    found = list(Run.objects.with_place().filter(run_id=run).order_by("-created_at")[:2])
    if not found:
        raise NothingHere(
            f"No run “{run}” is known here. A run that has just started shows up once its stage "
            "was read; an address with project, pipeline and stage is looked up at once."
        )
    address = reverse("run", args=[*rows.place_args(found[0].stage), run])
    query = request.META.get("QUERY_STRING", "")
    return redirect(f"{address}?{query}" if query else address)


def card(shown: Run, may: access.Verdict, its_aborts: list[Abort]) -> dict[str, Any]:
    """Return what a run's card shows."""
    root = steps.root_of(shown)
    return {
        "row": rows.row(shown, may, its_aborts[0] if its_aborts else None),
        "verdict": verdict.of(shown, root),
        "description": shown.description,
        "aborts": [acts.act(abort) for abort in its_aborts],
        "steps": steps.rows(shown, root),
        "steps_missing": steps.missing(shown, root),
        "northflank_url": links.northflank_url(shown),
    }


def _never_seen(request: HttpRequest, stage: Stage, run_id: str) -> HttpResponse:
    why_not = result_of(request)
    if why_not is None and stage.has_flow is not False:
        get_token(request)  # the page will need its cookie, and the middleware sets it now
        return Waiting(lambda: lookup.find(connection(), stage, run_id))
    raise NothingHere(
        f"No run “{run_id}” is known in {stage}. {why_not or ''}".strip(),
        (f"The runs of {stage}", reverse("stage", args=rows.place_args(stage))),
    )
