"""API endpoints: runs in flight, one run, its abort and its dismissal."""

import math
from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from django.core.exceptions import PermissionDenied
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from dashboard.aborts import left_running
from dashboard.aborts.request import (
    AbortRequest,
    NotAllowed,
    NotInFlight,
    ReasonMissing,
    request_abort,
)
from dashboard.aborts.send import wait_for_response
from dashboard.accounts import access_log
from dashboard.db import threads as db_threads
from dashboard.models import Abort, Run
from dashboard.models.abort_lifecycle import AbortState
from dashboard.models.bulk_aborts import Via
from dashboard.runs import dismissals, removals, steps, waiting_for, works
from dashboard.runs.search import Search
from dashboard.sync import log_reader, watchers
from dashboard.sync.log_reader import LogView
from dashboard.web.api import openapi, params, queries, schemas, serializers
from dashboard.web.api.auth import ApiClient, api_view
from dashboard.web.api.params import AbortBody, PlaceQuery, RunQuery, RunsQuery
from dashboard.web.http import links
from dashboard.web.http.client_address import client_address
from dashboard.web.http.responses.deferred import Deferred
from dashboard.web.http.responses.json_responses import ApiError, json_response

DEFAULT_RETRY_AFTER = timedelta(seconds=10)  # if the end of the pause is not known


@api_view("GET", "HEAD", query=RunsQuery, answer=schemas.RunList)
def runs(request: HttpRequest, client: ApiClient) -> HttpResponse:
    """List runs in flight, newest first."""
    parameters = params.parse_query(request, RunsQuery)
    limit = parameters.get("limit", params.PER_PAGE)
    visible = Run.objects.filter(client.permissions.stage_filter("stage"))
    matching = visible.in_flight().filter(queries.run_condition(parameters))
    if "status" in parameters:
        matching = matching.filter(status=parameters["status"])
    if "q" in parameters:
        if not (search := Search(parameters["q"])):
            raise ApiError("bad_parameter", "“q” has no text.")
        matching = matching.filter(search.condition)
    if "after" in parameters:
        matching = matching.filter(_after_run(parameters["after"], visible))
    ordered = matching.with_stage().without_detail().order_by("-created_at", "-pk")
    page = list(ordered[: limit + 1])  # one more, to know whether there is more
    next_url = None
    if len(page) > limit:
        page.pop()
        next_query = urlencode({**parameters, "after": page[-1].pk})
        next_url = links.absolute_url(f"{reverse('api_runs')}?{next_query}")
    report = queries.load_report(parameters, client.permissions)
    return json_response(
        serializers.run_list(serializers.runs(page, client.permissions), report, next_url)
    )


@api_view("GET", "HEAD", query=RunQuery, answer=schemas.RunWithHistory)
def run(request: HttpRequest, client: ApiClient, run_id: str) -> HttpResponse:
    """Return one run, with its aborts and acknowledgements, and perhaps the log it waits for."""
    parameters = params.parse_query(request, RunQuery)
    count = parameters.get("log")
    run_object = _get_run(run_id, parameters, client)
    watchers.watch_run(run_object, db_threads.now())
    if count is not None:
        return _run_with_log(request, client, run_object, count)
    return json_response(serializers.run_with_history(run_object, client.permissions))


def _run_with_log(request: HttpRequest, client: ApiClient, run: Run, count: int) -> HttpResponse:
    permission = client.permissions.logs_permission(run.stage)
    if not permission.allowed:
        raise ApiError("not_allowed", str(permission.denied_reason))

    awaited = works.awaited_work(run, steps.decode(run.steps))
    if awaited is None:
        return json_response(serializers.run_with_history(run, client.permissions))

    def respond(view: LogView) -> HttpResponse:
        access_log.record_logs_opened(
            client.user,
            run,
            str(waiting_for.name(awaited[1], view.work)),
            db_threads.now(),
            client_address=client_address(request),
            token_name=client.token_name,
        )
        log = serializers.log(view)
        return json_response(serializers.run_with_history(run, client.permissions, log))

    return Deferred(lambda: log_reader.get_reader().look(run, awaited, max_lines=count), respond)


@api_view("POST", query=PlaceQuery, body=AbortBody, answer=schemas.AbortResult)
def abort(request: HttpRequest, client: ApiClient, run_id: str) -> HttpResponse:
    """Abort a run, or what it has left running; a repeated request joins the open abort.

    2xx means that it was accepted or not needed, nothing less. Then ask for the run until it has
    `concluded` or the abort has `settled_at`. Allow a minute for the response.
    """
    body = params.parse_abort_body(request)
    run_object = _get_run(run_id, params.parse_query(request, PlaceQuery), client)
    abort_request = AbortRequest(
        user=client.user,
        reason=body.reason,
        client_address=client_address(request),
        via=Via.API,
        token_name=client.token_name,
        permissions=client.permissions,
    )
    if body.left_running is None:
        work, under_way = None, run_object.aborts.open().first()
    elif left := left_running.find(run_object, body.left_running):
        work, under_way = left.work, left.open_abort
    else:
        message = "“left_running” is no id of what the abort of this run has left running."
        raise ApiError("bad_field", message)
    try:
        abort_result = request_abort(
            run_object,
            abort_request,
            work=work,
            again_of_pk=under_way.pk if under_way and body.again else None,
            mark_sent=True,
        )
    except NotAllowed as denied:
        raise ApiError("not_allowed", str(denied)) from denied
    except NotInFlight as conflict:
        extra = {"run": serializers.run(run_object, client.permissions)}
        if run_object.has_unknown_end and work is None:
            message = f"Nothing was sent. {removals.unknown_end_reason(run_object)}"
            raise ApiError("end_unknown", message, extra=extra) from conflict
        message = f"{'It' if work else 'The run'} had already ended; nothing was sent."
        raise ApiError("not_in_flight", message, extra=extra) from conflict
    except ReasonMissing as reason_error:
        raise ApiError("reason_missing", str(reason_error)) from reason_error
    return Deferred(
        lambda: wait_for_response(abort_result),
        lambda abort: _abort_response(abort, client, joined=not abort_result.is_new),
    )


@api_view("POST", "DELETE", query=PlaceQuery, answer=schemas.Run)
def dismissal(request: HttpRequest, client: ApiClient, run_id: str) -> HttpResponse:
    """Dismiss a removed run (POST), or restore it (DELETE)."""
    run_object = _get_run(run_id, params.parse_query(request, PlaceQuery), client)
    change = dismissals.dismiss if request.method == "POST" else dismissals.restore
    try:
        change(run_object, client.user, client.permissions)
    except PermissionDenied as denied:
        raise ApiError("not_allowed", str(denied)) from denied
    except dismissals.NothingToDismiss as conflict:
        raise ApiError(
            "not_removed",
            "Nothing to remove: Northflank lists this run, or it has ended.",
            extra={"run": serializers.run(run_object, client.permissions)},
        ) from conflict
    return json_response(
        serializers.run(Run.objects.with_stage().get(pk=run_object.pk), client.permissions)
    )


@api_view("GET", "HEAD", answer=dict[str, Any])
def openapi_document(request: HttpRequest, client: ApiClient) -> HttpResponse:
    """Return this document."""
    return json_response(openapi.document())


@api_view()
def not_found(request: HttpRequest, client: ApiClient) -> HttpResponse:
    """Return a 404 for any other path."""
    raise ApiError("no_address", "No such address; all addresses end with a slash.")


def _after_run(pk: int, visible: Any) -> Q:
    """Return the condition for the runs that follow the run with this key in the list."""
    created_at = visible.filter(pk=pk).values_list("created_at", flat=True).first()
    if created_at is None:
        raise ApiError("bad_parameter", "“after” must be taken from “next” of an earlier response.")
    return Q(created_at__lt=created_at) | Q(created_at=created_at, pk__lt=pk)


def _get_run(run_id: str, place: Mapping[str, object], client: ApiClient) -> Run:
    return queries.find_run(run_id, place, client.permissions.stage_filter("stage"))


# A 2xx means that the abort took effect or was not needed, nothing less: a script may rely on the
# status alone.
ERRORS_BY_STATE = {
    AbortState.REFUSED: "refused",
    AbortState.NOT_SENT: "not_sent",
    AbortState.UNKNOWN: "no_response",
    AbortState.REQUESTED: "no_response",  # it is still being sent
}


def _abort_response(abort_row: Abort, client: ApiClient, *, joined: bool) -> HttpResponse:
    abort_fields = serializers.abort(abort_row, abort_row.run)
    body = {
        "joined": joined,
        "abort": abort_fields,
        "run": serializers.run(abort_row.run, client.permissions),
    }
    code = ERRORS_BY_STATE.get(AbortState(abort_row.state))
    if code is None:
        return json_response(body)
    headers = {}
    if abort_row.state == AbortState.NOT_SENT:
        at = db_threads.now()
        wait = (abort_row.retry_at or at + DEFAULT_RETRY_AFTER) - at
        headers["Retry-After"] = str(max(math.ceil(wait.total_seconds()), 1))
    raise ApiError(code, abort_fields["message"], headers=headers, extra=body)
