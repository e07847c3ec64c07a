"""How things of the world are written in the API's answers."""

import time
from collections.abc import Callable
from typing import Any

from .catalog import STAGES, TEAM_ID, Pipeline, Project, ReleaseFlow
from .history import Run
from .names import generate_description, generate_name
from .spec import API_VERSION, serialize_definition, serialize_extras, serialize_steps
from .world import World

type Json = dict[str, Any]
type TimeFormatter = Callable[[float], str]

CREATED_AT = 1_735_689_600.0
"""When projects, pipelines and flows were created: the beginning of 2025."""


def format_iso(timestamp: float) -> str:
    """Write a time as the documentation does for projects, teams and tokens."""
    return _format_utc(timestamp, "%Y-%m-%dT%H:%M:%S") + f".{_milliseconds(timestamp):03}Z"


def format_spaced(timestamp: float) -> str:
    """Write a time as the documentation does for runs: with a space."""
    return _format_utc(timestamp, "%Y-%m-%d %H:%M:%S") + f".{_milliseconds(timestamp):03}Z"


def format_whole_seconds(timestamp: float) -> str:
    return _format_utc(timestamp, "%Y-%m-%d %H:%M:%SZ")


TIME_FORMATTERS: dict[str, TimeFormatter] = {
    "space": format_spaced,
    "T": format_iso,
    "no-fraction": format_whole_seconds,
}


def _format_utc(timestamp: float, pattern: str) -> str:
    return time.strftime(pattern, time.gmtime(timestamp))


def _milliseconds(timestamp: float) -> int:
    # Cut, not rounded: 999.7 ms must not become 1000.
    return int(timestamp * 1000) % 1000


def serialize_project(project: Project) -> Json:
    return {"id": project.id, "name": project.name, "description": project.description}


def serialize_project_detail(project: Project) -> Json:
    services = [
        {
            "id": pipeline.service,
            "appId": f"/{TEAM_ID}/{project.id}/{pipeline.service}",
            "name": pipeline.name,
            "serviceType": "combined",
        }
        for pipeline in project.pipelines
    ]
    return serialize_project(project) | {
        "deployment": {"region": "europe-west"},
        "createdAt": format_iso(CREATED_AT),
        "services": services,
        "jobs": [],
        "addons": [],
        "cluster": {"id": "nf-europe-west", "name": "nf-europe-west"},
    }


def serialize_pipeline(pipeline: Pipeline, format_time: TimeFormatter) -> Json:
    data = {"id": pipeline.id, "name": pipeline.name}
    if pipeline.description:
        data["description"] = pipeline.description
    return data | {"createdAt": format_time(CREATED_AT), "updatedAt": format_time(CREATED_AT)}


def serialize_pipeline_detail(pipeline: Pipeline) -> Json:
    """Write a pipeline as `get pipeline` does: without its id and its times."""
    objects = [{"id": pipeline.service, "type": "service", "stage": stage} for stage in STAGES]
    data: Json = {"name": pipeline.name, "nfObjects": objects}
    if pipeline.description:
        data["description"] = pipeline.description
    return data


def serialize_release_flow(flow: ReleaseFlow, status: str, format_time: TimeFormatter) -> Json:
    definition_fields = serialize_extras(flow)
    definition_fields.pop("refs", None)  # belongs to runs
    is_paused = "paused" in flow.behaviours
    return definition_fields | {
        "apiVersion": API_VERSION,
        "spec": serialize_definition(flow),
        "status": status,
        "paused": is_paused,
        "stage": flow.stage,
        "options": {"concurrencyPolicy": flow.concurrency_policy, "paused": is_paused},
        "concurrencyPolicy": flow.concurrency_policy,
        "createdAt": format_time(CREATED_AT),
        "updatedAt": format_time(CREATED_AT),
    }


def serialize_run(world: World, run: Run, now: float, format_time: TimeFormatter) -> Json:
    data: Json = {"id": run.id}
    if (name := generate_name(run)) is not None:
        data["name"] = name
    if (description := generate_description(run)) is not None:
        data["description"] = description
    if now >= run.concluded_at:
        status, updated_at = run.outcome, run.concluded_at
    else:
        script = world.get_script(run)
        status, updated_at = run.status(now, script), run.updated_at(now, script)
    data |= {
        "status": status,
        "concluded": now >= run.concluded_at,
        "createdAt": format_time(run.created_at),
        "updatedAt": format_time(updated_at),
    }
    if run.started_at is not None and now >= run.started_at:
        data["startedAt"] = format_time(run.started_at)
    if now >= run.concluded_at:
        data["concludedAt"] = format_time(run.concluded_at)
    return data


def serialize_run_detail(world: World, run: Run, now: float, format_time: TimeFormatter) -> Json:
    data = serialize_run(world, run, now, format_time)
    data |= {"apiVersion": API_VERSION, "spec": serialize_steps(run, world.get_script(run), now)}
    data |= serialize_extras(run.flow)
    if run.start_body and isinstance(run.start_body.get("arguments"), dict):
        data["arguments"] = data.get("arguments", {}) | run.start_body["arguments"]
    return data
