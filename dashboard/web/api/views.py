"""The API's addresses: runs in flight, one run, and the abort of one."""

import math
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from dashboard import aborts
from dashboard.aborts import Press, Pressed
from dashboard.db import threads as db_threads
from dashboard.models import Abort, Run, Stage
from dashboard.models.aborts import AbortState
from dashboard.models.bulk_aborts import Via
from dashboard.runs import dismissals
from dashboard.sync import coverage, watchers
from dashboard.web.api import params, queries, serializers
from dashboard.web.api.auth import Caller, endpoint
from dashboard.web.api.responses import Failed, answer
from dashboard.web.components import run_row
from dashboard.web.http import links, lookup
from dashboard.web.http.client_address import client_address
from dashboard.web.http.deferred import Waiting, result_of

PER_PAGE, MOST = 100, 500  # runs of one answer
_BIGGEST = 2**63 - 1  # a database's key
RETRY_AFTER = 10  # seconds, where an abort was not sent and nobody knows when the next could be


@endpoint("GET", "HEAD")
def runs(request: HttpRequest, caller: Caller) -> HttpResponse:
    """Tell which runs are in flight, newest first."""
    asked = params.parameters(request, [*params.PLACE, "status", "limit", "after"])
    limit = params.number(asked.get("limit", str(PER_PAGE)), "limit", most=MOST)
    visible = Run.objects.filter(caller.rights.places("stage"))
    found = visible.in_flight().filter(queries.at(asked))
    if "status" in asked:
        found = found.filter(status=asked["status"])
    if "after" in asked:
        found = found.filter(_after(asked["after"], visible))
    ordered = found.with_place().without_detail().order_by("-created_at", "-pk")
    page = list(ordered[: limit + 1])  # one more, to know whether there is more
    more = ""
    if len(page) > limit:
        page.pop()
        onward = urlencode(asked | {"after": str(page[-1].pk)})
        more = links.whole(f"{reverse('api_runs')}?{onward}")
    latest = run_row.latest_aborts(page)
    listed = [serializers.run(run, latest.get(run.pk), caller.rights) for run in page]
    stages = Stage.objects.present().filter(caller.rights.places(), queries.stages_at(asked))
    lists = lookup.lists(caller.rights).filter(queries.lists_at(asked))
    known = coverage.load(stages, lists, db_threads.now())
    return answer({"runs": listed, "next": more or None} | serializers.complete(known))


@endpoint("GET", "HEAD")
def run(request: HttpRequest, caller: Caller, run: str) -> HttpResponse:
    """Tell how one run stands, concluded or not, and what was done about it."""
    shown = _find(run, params.parameters(request, params.PLACE), caller)
    watchers.in_run(shown, db_threads.now())
    told = {
        "aborts": serializers.aborts(shown),
        "looking": serializers.lookings(shown),
        "dismissals": serializers.dismissals(shown),
    }
    return answer(_whole(shown, caller) | told)


@endpoint("POST")
def abort(request: HttpRequest, caller: Caller, run: str) -> HttpResponse:
    """Abort a run, and answer what Northflank said; a repeat joins the abort that is under way."""
    pressed: Pressed | None = result_of(request)
    if pressed is not None:
        return _told(pressed, caller)
    said = params.abort(request)
    shown = _find(run, params.parameters(request, params.PLACE), caller)
    press = Press(
        user=caller.user,
        reason=said.reason,
        client_address=client_address(request),
        via=Via.API,
        token_name=caller.token_name,
        rights=caller.rights,
    )
    under_way = shown.aborts.open().first() if said.again else None
    try:
        made = aborts.request(shown, press, again=under_way.pk if under_way else None)
    except aborts.NotAllowed as refused:
        raise Failed(403, "not_allowed", str(refused)) from refused
    except aborts.NotInFlight as over:
        raise Failed(
            409,
            "not_in_flight",
            "The run had already ended; nothing was sent.",
            beside={"run": _whole(shown, caller)},
        ) from over
    except aborts.ReasonMissing as missing:
        raise Failed(422, "reason_missing", str(missing)) from missing

    async def answered() -> Pressed:
        await aborts.answered(made)
        return made

    return Waiting(answered)


@endpoint("POST", "DELETE")
def dismissal(request: HttpRequest, caller: Caller, run: str) -> HttpResponse:
    """Dismiss a run that Northflank knows no more (POST), or undo that (DELETE)."""
    shown = _find(run, params.parameters(request, params.PLACE), caller)
    act = dismissals.dismiss if request.method == "POST" else dismissals.undo
    try:
        act(shown, caller.user, caller.rights)
    except dismissals.NotAllowed as refused:
        raise Failed(403, "not_allowed", str(refused)) from refused
    except dismissals.NothingToDismiss as known:
        raise Failed(
            409,
            "not_gone",
            "Northflank knows the run, or it has ended; there is nothing to dismiss.",
            beside={"run": _whole(shown, caller)},
        ) from known
    return answer(_whole(Run.objects.with_place().get(pk=shown.pk), caller))


@endpoint()
def nothing(request: HttpRequest, caller: Caller) -> HttpResponse:
    """Say that there is nothing at this address."""
    raise Failed(404, "no_address", "There is nothing at this address; all end with a slash.")


def _after(last: str, visible: Any) -> Q:
    """Return the condition for what comes after a run, by its key, in the list."""
    pk = params.number(last, "after", most=_BIGGEST)
    created_at = visible.filter(pk=pk).values_list("created_at", flat=True).first()
    if created_at is None:
        raise Failed(400, "bad_parameter", "“after” is not from “next” of an earlier answer.")
    return Q(created_at__lt=created_at) | Q(created_at=created_at, pk__lt=pk)


def _find(run_id: str, place: Mapping[str, str], caller: Caller) -> Run:
    try:
        return queries.find(run_id, place, caller.rights.places("stage"))
    except queries.Unknown as unknown:
        raise Failed(404, "unknown_run", str(unknown)) from unknown
    except queries.Ambiguous as several:
        raise Failed(
            409, "ambiguous_run", str(several), beside={"places": several.places}
        ) from several


def _whole(shown: Run, caller: Caller) -> dict[str, Any]:
    latest = run_row.latest_aborts([shown]).get(shown.pk)
    return serializers.run(shown, latest, caller.rights)


# An answer of 2xx means that the abort took effect or that there was no need of it, nothing less: a
# script may go by the status alone.
FAILED: dict[AbortState, tuple[int, str]] = {
    AbortState.REFUSED: (502, "refused"),
    AbortState.NOT_SENT: (503, "not_sent"),
    AbortState.UNKNOWN: (504, "no_answer"),
    AbortState.REQUESTED: (504, "no_answer"),  # whoever sends it is not done with it
}


def _told(pressed: Pressed, caller: Caller) -> HttpResponse:
    act = Abort.objects.get(pk=pressed.abort.pk)
    shown = Run.objects.with_place().without_detail().get(pk=act.run_id)
    of_act = serializers.abort(act, shown)
    said = {"joined": not pressed.made, "abort": of_act, "run": _whole(shown, caller)}
    failed = FAILED.get(AbortState(act.state))
    if failed is None:
        return answer(said)
    headers = {"Retry-After": _wait(act)} if act.state == AbortState.NOT_SENT else None
    raise Failed(*failed, of_act["sentence"], headers=headers, beside=said)


def _wait(act: Abort) -> str:
    if act.retry_at is None:
        return str(RETRY_AFTER)
    return str(max(math.ceil((act.retry_at - db_threads.now()).total_seconds()), 1))
