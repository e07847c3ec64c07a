"""The API's routes: each function answers one of them, or raises an ApiError.

What Northflank's documentation leaves open is asked of `sandbox.choices`.
"""

import json
import re
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Any

from .calls import Answer, ApiError, Call, Json, page
from .catalog import STAGES, TEAM_ID, TEAM_NAME, Flow, Pipeline, Project
from .forms import (
    FOUNDED,
    STAMPS,
    Stamp,
    iso,
    pipeline_in_full,
    pipeline_in_list,
    project_in_full,
    project_in_list,
    release_flow,
    run_in_full,
    run_in_list,
)
from .history import Run
from .sandbox import Sandbox
from .world import Busy

type Handler = Callable[[Sandbox, Call], Answer | Json]

STATUSES = (
    *("pending", "queued", "running", "waiting", "retrying", "async_wait", "approval_wait"),
    *("aborting", "aborted", "success", "failure", "skipped", "unknown"),
)

# The rules of the page "Run release flow".
NAME = re.compile(r"(?=.{3,39}\Z)[A-Za-z](?:[- ]?[A-Za-z0-9])*")
DESCRIPTION = re.compile(r"[A-Za-z0-9\s.,?!:;'\"()\[\]/\\%^&*\-_`]{0,200}")


# --- who and where ---------------------------------------------------------------------------


def health(_: Sandbox, __: Call) -> Json:
    return {"data": {"message": "success"}}


def auth(_: Sandbox, __: Call) -> Json:
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
            "createdAt": iso(FOUNDED),
            "expiresAt": None,
        }
    }


def login(_: Sandbox, __: Call) -> Json:
    """Answer the command line client, which only looks at the status."""
    return {"data": {"entityId": TEAM_ID, "entityType": "team"}}


def teams(sandbox: Sandbox, call: Call) -> Json:
    def form(team: str) -> Json:
        return {"id": team, "name": TEAM_NAME, "createdAt": iso(FOUNDED), "uid": f"{team}-uid"}

    return page([TEAM_ID], call, sandbox.choices, key="teams", id_of=str, form=form)


def projects(sandbox: Sandbox, call: Call) -> Json:
    return page(
        sandbox.world.projects,
        call,
        sandbox.choices,
        key="projects",
        id_of=lambda project: project.id,
        form=project_in_list,
    )


def project(sandbox: Sandbox, call: Call) -> Json:
    return {"data": project_in_full(_project(sandbox, call))}


def pipelines(sandbox: Sandbox, call: Call) -> Json:
    return page(
        _project(sandbox, call).pipelines,
        call,
        sandbox.choices,
        key="pipelines",
        id_of=lambda pipeline: pipeline.id,
        form=lambda pipeline: pipeline_in_list(pipeline, _stamp(sandbox)),
    )


def pipeline(sandbox: Sandbox, call: Call) -> Json:
    return {"data": pipeline_in_full(_pipeline(sandbox, call))}


def flow(sandbox: Sandbox, call: Call) -> Json:
    found = _flow(sandbox, call)
    latest = next(sandbox.world.runs(found, call.now), None)
    status = sandbox.world.status(latest, call.now) if latest else "unknown"
    return {"data": release_flow(found, status, _stamp(sandbox))}


# --- runs ------------------------------------------------------------------------------------


def runs(sandbox: Sandbox, call: Call) -> Json:
    try:
        found: Flow | None = _flow(sandbox, call)
    except NoFlow:
        if sandbox.choices["stage-without-flow"] == "404":
            raise
        found = None
    world = sandbox.world
    stamp = _stamp(sandbox)
    return page(
        _ordered(world.runs(found, call.now), sandbox) if found else (),
        call,
        sandbox.choices,
        key="runs",
        id_of=lambda run: run.id,
        form=lambda run: run_in_list(world, run, call.now, stamp),
        keep=_filter(sandbox, call),
    )


def run(sandbox: Sandbox, call: Call) -> Json:
    found = sandbox.world.run(_flow(sandbox, call), call.params["run"], call.now)
    return _detail(sandbox, call, found)


def start(sandbox: Sandbox, call: Call) -> Json:
    found = _flow(sandbox, call)
    request = _start_request(call.body)
    try:
        started = sandbox.world.start(found, call.now, request)
    except Busy:
        if sandbox.choices["forbid-start"] == "200":
            return {"data": {}}
        message = "A run is in progress, and the concurrency policy forbids another"
        raise ApiError(409, message) from None
    if sandbox.choices["start-answer"] == "empty":
        return {"data": {}}
    return _detail(sandbox, call, started)


def abort(sandbox: Sandbox, call: Call) -> Json:
    world = sandbox.world
    found = _flow(sandbox, call)
    before = world.run(found, call.params["run"], call.now)
    if before and call.now >= before.concluded:
        wanted = sandbox.choices["abort-concluded"]
        if wanted != "200":
            raise ApiError(int(wanted), "The run has already concluded")
        return _detail(sandbox, call, before)
    unchanged = _detail(sandbox, call, before)
    world.abort_seconds = sandbox.choices.abort_seconds
    answer = sandbox.choices["abort-answer"]
    after = world.abort(found, call.params["run"], call.now, at_once=answer == "aborted")
    return unchanged if answer == "unchanged" else _detail(sandbox, call, after)


# --- finding things --------------------------------------------------------------------------


class NoFlow(ApiError):
    def __init__(self) -> None:
        super().__init__(404, "Release flow not found")


def in_team(sandbox: Sandbox, call: Call) -> None:
    """Refuse another team than the one there is."""
    if call.params.get("team", TEAM_ID) != TEAM_ID:
        status = int(sandbox.choices["no-access"])
        message = "Missing permission: no access to this team"
        raise ApiError(status, message if status == 403 else "Team not found")


def _project(sandbox: Sandbox, call: Call) -> Project:
    in_team(sandbox, call)
    found = sandbox.world.project(call.params["project"])
    if not found:
        raise ApiError(404, "Project not found")
    return found


def _pipeline(sandbox: Sandbox, call: Call) -> Pipeline:
    project_id = _project(sandbox, call).id
    found = sandbox.world.pipeline(project_id, call.params["pipeline"])
    if not found:
        raise ApiError(404, "Pipeline not found")
    return found


def _flow(sandbox: Sandbox, call: Call) -> Flow:
    found = _pipeline(sandbox, call)
    stage = call.params["stage"]
    spelling = sandbox.choices["stage-spelling"]
    spelled = {"lower": stage.lower(), "capitalised": stage.capitalize()}.get(spelling, stage)
    if stage.capitalize() not in STAGES or stage != spelled:
        raise ApiError(404, "Stage not found")
    if stage.capitalize() not in found.flows:
        raise NoFlow
    return found.flows[stage.capitalize()]


def _stamp(sandbox: Sandbox) -> Stamp:
    return STAMPS[sandbox.choices["timestamps"]]


def _detail(sandbox: Sandbox, call: Call, found: Run | None) -> Json:
    if not found:
        raise ApiError(404, "Release flow run not found")
    return {"data": run_in_full(sandbox.world, found, call.now, _stamp(sandbox))}


def _ordered(found: Iterable[Run], sandbox: Sandbox) -> Iterable[Run]:
    order = sandbox.choices["run-order"]
    if order == "newest-first":
        return found
    if order == "oldest-first":
        return reversed(list(found))
    return sorted(found, key=lambda run: blake2b(run.id.encode()).digest())


def _filter(sandbox: Sandbox, call: Call) -> Callable[[Run], bool]:
    status = call.query.get("status")
    concluded = call.query.get("concluded")
    if status is not None and status not in STATUSES:
        raise ApiError(400, "Invalid query", {"status": [f"must be one of {', '.join(STATUSES)}"]})
    if concluded not in {None, "true", "false"}:
        raise ApiError(400, "Invalid query", {"concluded": ["must be true or false"]})

    def keep(run: Run) -> bool:
        if concluded is not None and (call.now >= run.concluded) != (concluded == "true"):
            return False
        return status is None or sandbox.world.status(run, call.now) == status

    return keep


# --- the body of a start ---------------------------------------------------------------------


def _start_request(body: bytes) -> Json:
    """Read and check what a run is started with; an empty body asks for nothing special."""
    try:
        request: Any = json.loads(body) if body.strip() else {}
    except (ValueError, RecursionError):
        raise ApiError(400, "The body is not JSON") from None
    if not isinstance(request, dict):
        raise ApiError(400, "The body must be an object")
    details: dict[str, list[str]] = {}
    name, description = request.get("name"), request.get("description")
    if name is not None and not (isinstance(name, str) and NAME.fullmatch(name)):
        rule = "must be 3 to 39 characters: a letter, then letters and digits"
        details["name"] = [f"{rule} with single hyphens or spaces between them"]
    if description is not None and not (
        isinstance(description, str) and DESCRIPTION.fullmatch(description)
    ):
        details["description"] = ["must be at most 200 letters, digits and usual punctuation"]
    for key in ("arguments", "overrides", "releaseNodeOverrides"):
        if not isinstance(request.get(key, {}), dict):
            details[key] = ["must be an object"]
    if details:
        raise ApiError(400, "Invalid request", details)
    return request


ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/projects", projects),
    ("GET", "/projects/{project}", project),
    ("GET", "/projects/{project}/pipelines", pipelines),
    ("GET", "/projects/{project}/pipelines/{pipeline}", pipeline),
    ("GET", "/projects/{project}/pipelines/{pipeline}/release-flows/{stage}", flow),
    ("GET", "/projects/{project}/pipelines/{pipeline}/release-flows/{stage}/runs", runs),
    ("POST", "/projects/{project}/pipelines/{pipeline}/release-flows/{stage}/runs", start),
    ("GET", "/projects/{project}/pipelines/{pipeline}/release-flows/{stage}/runs/{run}", run),
    (
        "POST",
        "/projects/{project}/pipelines/{pipeline}/release-flows/{stage}/runs/{run}/abort",
        abort,
    ),
)
"""Routes that exist plain and in team form."""

ACCOUNT_ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/auth", auth),
    ("GET", "/login", login),
    ("GET", "/teams", teams),
)
