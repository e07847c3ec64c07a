"""How things of the world are written in the API's answers."""

import time
from collections.abc import Callable
from typing import Any

from .catalog import STAGES, TEAM_ID, Flow, Pipeline, Project
from .history import Run
from .names import description_of, name_of
from .spec import API_VERSION, definition, extras, tree
from .world import World

type Json = dict[str, Any]
type Stamp = Callable[[float], str]

FOUNDED = 1_735_689_600.0
"""When projects, pipelines and flows were created: the beginning of 2025."""


def iso(at: float) -> str:
    """Write a time as the documentation does for projects, teams and tokens."""
    return _stamp(at, "%Y-%m-%dT%H:%M:%S") + f".{_milliseconds(at):03}Z"


def spaced(at: float) -> str:
    """Write a time as the documentation does for runs: with a space."""
    return _stamp(at, "%Y-%m-%d %H:%M:%S") + f".{_milliseconds(at):03}Z"


def whole(at: float) -> str:
    return _stamp(at, "%Y-%m-%d %H:%M:%SZ")


STAMPS: dict[str, Stamp] = {"space": spaced, "T": iso, "no-fraction": whole}


def _stamp(at: float, form: str) -> str:
    return time.strftime(form, time.gmtime(at))


def _milliseconds(at: float) -> int:
    # Cut, not rounded: 999.7 ms must not become 1000.
    return int(at * 1000) % 1000


def project_in_list(project: Project) -> Json:
    return {"id": project.id, "name": project.name, "description": project.description}


def project_in_full(project: Project) -> Json:
    services = [
        {
            "id": pipeline.service,
            "appId": f"/{TEAM_ID}/{project.id}/{pipeline.service}",
            "name": pipeline.name,
            "serviceType": "combined",
        }
        for pipeline in project.pipelines
    ]
    return project_in_list(project) | {
        "deployment": {"region": "europe-west"},
        "createdAt": iso(FOUNDED),
        "services": services,
        "jobs": [],
        "addons": [],
        "cluster": {"id": "nf-europe-west", "name": "nf-europe-west"},
    }


def pipeline_in_list(pipeline: Pipeline, stamp: Stamp) -> Json:
    form = {"id": pipeline.id, "name": pipeline.name}
    if pipeline.description:
        form["description"] = pipeline.description
    return form | {"createdAt": stamp(FOUNDED), "updatedAt": stamp(FOUNDED)}


def pipeline_in_full(pipeline: Pipeline) -> Json:
    """Write a pipeline as `get pipeline` does: without its id and its times."""
    objects = [{"id": pipeline.service, "type": "service", "stage": stage} for stage in STAGES]
    form: Json = {"name": pipeline.name, "nfObjects": objects}
    if pipeline.description:
        form["description"] = pipeline.description
    return form


def release_flow(flow: Flow, status: str, stamp: Stamp) -> Json:
    more = extras(flow)
    more.pop("refs", None)  # belongs to runs
    paused = "paused" in flow.quirks
    return more | {
        "apiVersion": API_VERSION,
        "spec": definition(flow),
        "status": status,
        "paused": paused,
        "stage": flow.stage,
        "options": {"concurrencyPolicy": flow.policy, "paused": paused},
        "concurrencyPolicy": flow.policy,
        "createdAt": stamp(FOUNDED),
        "updatedAt": stamp(FOUNDED),
    }


def run_in_list(world: World, run: Run, now: float, stamp: Stamp) -> Json:
    form: Json = {"id": run.id}
    if (name := name_of(run)) is not None:
        form["name"] = name
    if (description := description_of(run)) is not None:
        form["description"] = description
    if now >= run.concluded:
        status, updated = run.outcome, run.concluded
    else:
        life = world.life(run)
        status, updated = run.status(now, life), run.updated(now, life)
    form |= {
        "status": status,
        "concluded": now >= run.concluded,
        "createdAt": stamp(run.created),
        "updatedAt": stamp(updated),
    }
    if run.started is not None and now >= run.started:
        form["startedAt"] = stamp(run.started)
    if now >= run.concluded:
        form["concludedAt"] = stamp(run.concluded)
    return form


def run_in_full(world: World, run: Run, now: float, stamp: Stamp) -> Json:
    form = run_in_list(world, run, now, stamp)
    form |= {"apiVersion": API_VERSION, "spec": tree(run, world.life(run), now)}
    form |= extras(run.flow)
    if run.request and isinstance(run.request.get("arguments"), dict):
        form["arguments"] = form.get("arguments", {}) | run.request["arguments"]
    return form
