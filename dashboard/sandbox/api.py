"""The API's routes: each function answers one of them, or raises an ApiError.

Where Northflank's documentation leaves a behaviour open, `sandbox.choices` decides.
"""

import json
import re
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Any

from .catalog import STAGES, TEAM_ID, TEAM_NAME, Pipeline, Project, ReleaseFlow
from .history import Run
from .http import ApiError, ApiRequest, Json, NoAccess, paginate
from .sandbox import Sandbox
from .serializers import (
    CREATED_AT,
    TIME_FORMATTERS,
    TimeFormatter,
    format_iso,
    serialize_pipeline,
    serialize_pipeline_detail,
    serialize_project,
    serialize_project_detail,
    serialize_release_flow,
    serialize_run,
    serialize_run_detail,
)
from .world import StartForbidden

type Handler = Callable[[Sandbox, ApiRequest], Json]

STATUSES = (
    *("pending", "queued", "running", "waiting", "retrying", "async_wait", "approval_wait"),
    *("aborting", "aborted", "success", "failure", "skipped", "unknown"),
)

# As documented for "Run release flow".
NAME_PATTERN = re.compile(r"(?=.{3,39}\Z)[A-Za-z](?:[- ]?[A-Za-z0-9])*")
DESCRIPTION_PATTERN = re.compile(r"[A-Za-z0-9\s.,?!:;'\"()\[\]/\\%^&*\-_`]{0,200}")


# --- catalog ---------------------------------------------------------------------------------


def get_health(_: Sandbox, __: ApiRequest) -> Json:
    return {"data": {"message": "success"}}


def get_auth(_: Sandbox, __: ApiRequest) -> Json:
    permissions = ["Projects > Manage > Read", "Pipelines > General > Read"]
    return {
        "data": {
            "tokenKind": "api",
            "id": "sandbox-token",
            "name": "Sandbox token",
            "entityId": TEAM_ID,
            "entityUid": "5f0c7c1e0d554f0e9a556f5b",
            "entityType": "team",
            "role": {"name": "Release manager", "roleId": "release-manager", "roleType": "team"},
            "permissions": {"projectScope": [*permissions, "Pipelines > General > Update"]},
            "projectRestrictions": {"enabled": False, "projects": [], "restrictionMode": "in"},
            "createdAt": format_iso(CREATED_AT),
            "expiresAt": None,
        }
    }


def login(_: Sandbox, __: ApiRequest) -> Json:
    """Answer the login of the command line client, which only checks the status."""
    return {"data": {"entityId": TEAM_ID, "entityType": "team"}}


def list_teams(sandbox: Sandbox, request: ApiRequest) -> Json:
    def serialize(team: str) -> Json:
        return {
            "id": team,
            "name": TEAM_NAME,
            "createdAt": format_iso(CREATED_AT),
            "uid": f"{team}-uid",
        }

    last_cursor = sandbox.choices["last-cursor"]
    return paginate([TEAM_ID], request, last_cursor, key="teams", get_id=str, serialize=serialize)


def list_projects(sandbox: Sandbox, request: ApiRequest) -> Json:
    _check_team(request)
    return paginate(
        sandbox.world.projects,
        request,
        sandbox.choices["last-cursor"],
        key="projects",
        get_id=lambda project: project.id,
        serialize=serialize_project,
    )


def get_project(sandbox: Sandbox, request: ApiRequest) -> Json:
    return {"data": serialize_project_detail(_find_project(sandbox, request))}


def list_pipelines(sandbox: Sandbox, request: ApiRequest) -> Json:
    return paginate(
        _find_project(sandbox, request).pipelines,
        request,
        sandbox.choices["last-cursor"],
        key="pipelines",
        get_id=lambda pipeline: pipeline.id,
        serialize=lambda pipeline: serialize_pipeline(pipeline, _time_formatter(sandbox)),
    )


def get_pipeline(sandbox: Sandbox, request: ApiRequest) -> Json:
    return {"data": serialize_pipeline_detail(_find_pipeline(sandbox, request))}


def get_release_flow(sandbox: Sandbox, request: ApiRequest) -> Json:
    flow = _find_flow(sandbox, request)
    latest = next(sandbox.world.list_runs(flow, request.now), None)
    status = sandbox.world.run_status(latest, request.now) if latest else "unknown"
    return {"data": serialize_release_flow(flow, status, _time_formatter(sandbox))}


# --- runs ------------------------------------------------------------------------------------


def list_runs(sandbox: Sandbox, request: ApiRequest) -> Json:
    try:
        flow: ReleaseFlow | None = _find_flow(sandbox, request)
    except ReleaseFlowNotFound:
        if sandbox.choices["stage-without-flow"] == "404":
            raise
        flow = None
    world = sandbox.world
    format_time, updated = _time_formatter(sandbox), sandbox.choices["updated-at"]
    return paginate(
        _order_runs(world.list_runs(flow, request.now), sandbox) if flow else (),
        request,
        sandbox.choices["last-cursor"],
        key="runs",
        get_id=lambda run: run.id,
        serialize=lambda run: serialize_run(world, run, request.now, format_time, updated),
        matches=_run_filter(sandbox, request),
    )


def get_run(sandbox: Sandbox, request: ApiRequest) -> Json:
    run = sandbox.world.find_run(_find_flow(sandbox, request), request.params["run"], request.now)
    return _run_response(sandbox, request, run)


def start_run(sandbox: Sandbox, request: ApiRequest) -> Json:
    flow = _find_flow(sandbox, request)
    start_body = _parse_start_body(request.body)
    try:
        run = sandbox.world.start_run(flow, request.now, start_body)
    except StartForbidden:
        message = "A run is in progress, and the concurrency policy forbids another"
        raise ApiError(409, message) from None
    return _run_response(sandbox, request, run)


def abort_run(sandbox: Sandbox, request: ApiRequest) -> Json:
    world = sandbox.world
    flow = _find_flow(sandbox, request)
    run = world.find_run(flow, request.params["run"], request.now)
    if run and request.now >= run.concluded_at:
        status_choice = sandbox.choices["abort-concluded"]
        if status_choice != "200":
            raise ApiError(int(status_choice), "The run has already concluded")
        return _run_response(sandbox, request, run)
    unchanged_response = _run_response(sandbox, request, run)
    world.abort_seconds = sandbox.choices.abort_seconds
    answer_choice = sandbox.choices["abort-answer"]
    aborted_run = world.abort_run(
        flow, request.params["run"], request.now, at_once=answer_choice == "aborted"
    )
    return (
        unchanged_response
        if answer_choice == "unchanged"
        else _run_response(sandbox, request, aborted_run)
    )


# --- lookups -------------------------------------------------------------------------------


class ReleaseFlowNotFound(ApiError):
    def __init__(self) -> None:
        super().__init__(404, "Release flow not found")


def _check_team(request: ApiRequest) -> None:
    """Raise NoAccess for any team other than the sandbox's."""
    if request.params.get("team", TEAM_ID) != TEAM_ID:
        raise NoAccess("no access to this team", hidden="Team")


def _find_project(sandbox: Sandbox, request: ApiRequest) -> Project:
    _check_team(request)
    project = sandbox.world.find_project(request.params["project"])
    if not project:
        raise ApiError(404, "Project not found")
    return project


def _find_pipeline(sandbox: Sandbox, request: ApiRequest) -> Pipeline:
    project_id = _find_project(sandbox, request).id
    pipeline = sandbox.world.find_pipeline(project_id, request.params["pipeline"])
    if not pipeline:
        raise ApiError(404, "Pipeline not found")
    return pipeline


def _find_flow(sandbox: Sandbox, request: ApiRequest) -> ReleaseFlow:
    pipeline = _find_pipeline(sandbox, request)
    stage = request.params["stage"]
    spelling = sandbox.choices["stage-spelling"]
    expected_spelling = {"lower": stage.lower(), "capitalised": stage.capitalize()}.get(
        spelling, stage
    )
    if stage.capitalize() not in STAGES or stage != expected_spelling:
        raise ApiError(404, "Stage not found")
    if stage.capitalize() not in pipeline.flows:
        raise ReleaseFlowNotFound
    return pipeline.flows[stage.capitalize()]


def _time_formatter(sandbox: Sandbox) -> TimeFormatter:
    return TIME_FORMATTERS[sandbox.choices["timestamps"]]


def _run_response(sandbox: Sandbox, request: ApiRequest, run: Run | None) -> Json:
    if not run:
        raise ApiError(404, "Release flow run not found")
    format_time, updated = _time_formatter(sandbox), sandbox.choices["updated-at"]
    return {"data": serialize_run_detail(sandbox.world, run, request.now, format_time, updated)}


def _order_runs(runs: Iterable[Run], sandbox: Sandbox) -> Iterable[Run]:
    order = sandbox.choices["run-order"]
    if order == "newest-first":
        return runs
    if order == "oldest-first":
        return reversed(list(runs))
    return sorted(runs, key=lambda run: blake2b(run.id.encode()).digest())


def _run_filter(sandbox: Sandbox, request: ApiRequest) -> Callable[[Run], bool]:
    status = request.query.get("status")
    concluded = request.query.get("concluded")
    if status is not None and status not in STATUSES:
        raise ApiError(400, "Invalid query", {"status": [f"must be one of {', '.join(STATUSES)}"]})
    if concluded not in {None, "true", "false"}:
        raise ApiError(400, "Invalid query", {"concluded": ["must be true or false"]})

    def matches(run: Run) -> bool:
        if concluded is not None and (request.now >= run.concluded_at) != (concluded == "true"):
            return False
        return status is None or sandbox.world.run_status(run, request.now) == status

    return matches


# --- the body of a start ---------------------------------------------------------------------


def _parse_start_body(body: bytes) -> Json:
    """Return the checked body of a start request; an empty body means no arguments."""
    try:
        fields: Any = json.loads(body) if body.strip() else {}
    except (ValueError, RecursionError):
        raise ApiError(400, "The body is not JSON") from None
    if not isinstance(fields, dict):
        raise ApiError(400, "The body must be an object")
    details: dict[str, list[str]] = {}
    name, description = fields.get("name"), fields.get("description")
    if name is not None and not (isinstance(name, str) and NAME_PATTERN.fullmatch(name)):
        rule = "must be 3 to 39 characters: a letter, then letters and digits"
        details["name"] = [f"{rule} with single hyphens or spaces between them"]
    if description is not None and not (
        isinstance(description, str) and DESCRIPTION_PATTERN.fullmatch(description)
    ):
        details["description"] = ["must be at most 200 letters, digits and usual punctuation"]
    for key in ("arguments", "overrides", "releaseNodeOverrides"):
        if not isinstance(fields.get(key, {}), dict):
            details[key] = ["must be an object"]
    if details:
        raise ApiError(400, "Invalid request", details)
    return fields


ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/projects", list_projects),
    ("GET", "/projects/{project}", get_project),
    ("GET", "/projects/{project}/pipelines", list_pipelines),
    ("GET", "/projects/{project}/pipelines/{pipeline}", get_pipeline),
    ("GET", "/projects/{project}/pipelines/{pipeline}/release-flows/{stage}", get_release_flow),
    ("GET", "/projects/{project}/pipelines/{pipeline}/release-flows/{stage}/runs", list_runs),
    ("POST", "/projects/{project}/pipelines/{pipeline}/release-flows/{stage}/runs", start_run),
    ("GET", "/projects/{project}/pipelines/{pipeline}/release-flows/{stage}/runs/{run}", get_run),
    (
        "POST",
        "/projects/{project}/pipelines/{pipeline}/release-flows/{stage}/runs/{run}/abort",
        abort_run,
    ),
)
"""Routes available with and without a team in the path."""

ACCOUNT_ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/auth", get_auth),
    ("GET", "/login", login),
    ("GET", "/teams", list_teams),
)
