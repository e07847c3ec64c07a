"""The JSON of responses: the catalog, runs with their names, and the tree of steps.

Functions that take `choices` write what the choice `timestamps` says.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Any

from .catalog import STAGES, TEAM, Pipeline, Project, ReleaseFlow
from .children import list_children
from .choices import Choices
from .runs import Run
from .secret_lines import SECRET_PREFIX
from .simulation import RESPONSE_DELAY, StepScript
from .steps import ARGUMENTS, Step

type Json = dict[str, Any]

API_VERSION = "v1.2"
MAX_ATTEMPTS = 3
BACKOFF_SECONDS = 60
"""Seconds by which an attempt is postponed each time."""
CREATED_AT = 1_735_689_600.0
"""When projects, pipelines and flows were created: the beginning of 2025."""


def format_time(timestamp: float, form: str = "T") -> str:
    """Format a time; `form` is a value of the choice `timestamps`.

    The documentation has a `T` for projects, teams and tokens, and a space for runs and flows.
    """
    moment = datetime.fromtimestamp(timestamp, UTC)
    precision = "seconds" if form == "no-fraction" else "milliseconds"
    return moment.isoformat("T" if form == "T" else " ", precision).removesuffix("+00:00") + "Z"


# --- catalog and runs -----------------------------------------------------------------------------


def serialize_project(project: Project) -> Json:
    return {"id": project.id, "name": project.name, "description": project.description}


def serialize_project_detail(project: Project) -> Json:
    app_id = f"/{TEAM.id}/{project.id}/"
    services = [
        {"id": p.id, "appId": app_id + p.id, "name": p.name, "serviceType": "combined"}
        for p in project.pipelines
    ]
    return serialize_project(project) | {
        "deployment": {"region": "europe-west"},
        "createdAt": format_time(CREATED_AT),
        "services": services,
        "jobs": [],
        "addons": [],
        "cluster": {"id": "nf-europe-west", "name": "nf-europe-west"},
    }


def serialize_pipeline(pipeline: Pipeline, choices: Choices) -> Json:
    description = {"description": pipeline.description} if pipeline.description else {}
    return {"id": pipeline.id, "name": pipeline.name, **description, **_creation_times(choices)}


def serialize_pipeline_detail(pipeline: Pipeline) -> Json:
    """Serialize a pipeline as `get pipeline` does: without id and times."""
    objects = [{"id": pipeline.id, "type": "service", "stage": stage} for stage in STAGES]
    return {"name": pipeline.name, "description": pipeline.description, "nfObjects": objects}


def _creation_times(choices: Choices) -> Json:
    created_at = format_time(CREATED_AT, choices["timestamps"])
    return {"createdAt": created_at, "updatedAt": created_at}


def serialize_release_flow(flow: ReleaseFlow, status: str, choices: Choices) -> Json:
    extras = _serialize_extras(flow)
    extras.pop("refs", None)  # only in runs
    is_paused = "paused" in flow.behaviours
    return extras | {
        "apiVersion": API_VERSION,
        "spec": serialize_definition(flow),
        "status": status,
        "paused": is_paused,
        "stage": flow.stage,
        "options": {"concurrencyPolicy": flow.concurrency_policy, "paused": is_paused},
        "concurrencyPolicy": flow.concurrency_policy,
        **_creation_times(choices),
    }


def serialize_run(run: Run, now: float, choices: Choices) -> Json:
    """Serialize a run as lists do."""
    form, is_concluded = choices["timestamps"], now >= run.concluded_at
    status, updated_at = run.state(now)
    data: Json = {"id": run.id}
    if (name := generate_name(run)) is not None:
        data["name"] = name
    if (description := generate_description(run)) is not None:
        data["description"] = description
    data |= {
        "status": status,
        "concluded": is_concluded,
        "createdAt": format_time(run.created_at, form),
        "updatedAt": format_time(updated_at, form),
    }
    if run.started_at is not None and now >= run.started_at:
        data["startedAt"] = format_time(run.started_at, form)
    if is_concluded:
        data["concludedAt"] = format_time(run.concluded_at, form)
    return data


def serialize_run_detail(run: Run, now: float, choices: Choices) -> Json:
    data = serialize_run(run, now, choices) | _serialize_extras(run.flow)
    created = _describe_created(run, now)
    data |= {"apiVersion": API_VERSION, "spec": serialize_steps(run, now, created)}
    if created:
        data["refs"] = data.get("refs", {}) | created
    if arguments := (run.start_body or {}).get("arguments"):
        data["arguments"] = data.get("arguments", {}) | arguments
    return data


# --- names of runs --------------------------------------------------------------------------------

RELEASE_SECONDS = 1200  # between two releases of a pipeline

_SUBJECTS = (
    "Search facets", "Refund rounding", "Cookie banner", "Rate limits", "Dark theme",
    "Invoice export", "Retry on timeout", "Node upgrade", "Session cache", "Currency table",
    "Audit log", "Slow query fix", "Feature flags", "Load shedding", "Image sizes", "Webhooks v2",
)  # fmt: skip
_DESCRIPTIONS = ("", "", "", "Weekly release train", "Requested by support, see ticket 4711.")


def generate_name(run: Run) -> str | None:
    """Return the name of a run; about one run in eight has none."""
    if run.start_body is not None:
        return run.start_body.get("name")
    hash_value = int(run.id[:8], 16)
    if hash_value % 8 == 0:
        return None
    number = release_number(run)
    return f"{_SUBJECTS[number * 7 % len(_SUBJECTS)]} {number % 10000}"


def release_number(run: Run) -> int:
    """Return which release of its pipeline a run is of: later stages get those of earlier ones."""
    production_lag = 2 + sum(map(ord, run.flow.pipeline)) % 4
    lag = {"Development": 0, "Staging": 1}.get(run.flow.stage, production_lag)
    return int(run.created_at // RELEASE_SECONDS) - lag


def generate_description(run: Run) -> str | None:
    if run.start_body is not None:
        return run.start_body.get("description")
    hash_value = int(run.id[9:13], 16)
    return _DESCRIPTIONS[hash_value % len(_DESCRIPTIONS)] or None


# --- steps ----------------------------------------------------------------------------------------


def serialize_definition(flow: ReleaseFlow) -> Json:
    """Return the flow's definition: the tree without responses."""
    return _root_node([_definition_node(step) for step in flow.steps])


def _serialize_extras(flow: ReleaseFlow) -> Json:
    """Return the fields beside the tree in a definition and in a run, including the secrets."""
    fields: Json = {"options": {"concurrencyPolicy": flow.concurrency_policy}}
    if "holds-secrets" in flow.behaviours:
        password = f"{SECRET_PREFIX}argument-{flow.pipeline}"
        fields["arguments"] = ARGUMENTS | {"DB_PASSWORD": password}
        push: Json = {"ref": "push", "vcsService": "github", "branchRestrictions": ["main"]}
        push["repoUrl"] = f"https://github.example/acme/{flow.pipeline}"
        token = f"{SECRET_PREFIX}trigger-{flow.key}"
        fields["triggers"] = [push, {"kind": "webhook", "ref": "hook", "spec": {"token": token}}]
        secret = f"{SECRET_PREFIX}ref-{flow.pipeline}"
        fields["refs"] = {"build": {"sha": "0" * 40, "pullSecret": secret}}
    return fields


def _describe_created(run: Run, now: float) -> dict[str, Json]:
    """Return what nodes say of what they started, by ref: its last attempt."""
    created = {}
    for child in list_children(run):
        if now < child.started_at + RESPONSE_DELAY or "unnamed" in child.step.behaviours:
            continue
        if child.step.kind == "JobRun":
            fields = {"id": child.id, "runName": child.name}
            secret = {"connection": f"postgres://app:{SECRET_PREFIX}data@db.internal/app"}
        else:
            fields = {"id": child.id, "branch": "main", "sha": f"{release_number(run):040x}"}
            secret = {"pullSecret": f"{SECRET_PREFIX}pull-{run.flow.pipeline}"}
        is_secretive = "holds-secrets" in run.flow.behaviours
        created[child.step.ref] = fields | secret if is_secretive else fields
    return created


def serialize_steps(run: Run, now: float, created: Mapping[str, Json]) -> Json:
    """Return the tree of a run as of now; see `_describe_created`."""
    if run.started_at is None or now < run.started_at:
        return serialize_definition(run.flow)
    serializer = _StepSerializer(run, run.started_at, now, created)
    response = serializer.group_response(0, run.concluded_at - run.started_at, run.outcome)
    nodes = serializer.serialize_nodes(run.flow.steps, run.script.steps)
    return _root_node(nodes) | {"response": response}


def _root_node(steps: list[Json]) -> Json:
    return {"kind": "Workflow", "spec": {"type": "sequential", "steps": steps}}


def _definition_node(step: Step) -> Json:
    """Return a node without a response, and its child nodes."""
    node: Json = {"kind": step.kind, "spec": dict(step.spec), **step.node_fields}
    if step.ref:
        node["ref"] = step.ref
    if step.steps:
        node["spec"]["steps"] = [_definition_node(child) for child in step.steps]
    return node


class _StepSerializer:
    """Serializes nodes as of one moment. Times are in seconds since the start of the run."""

    def __init__(self, run: Run, started: float, now: float, created: Mapping[str, Json]) -> None:
        self.run = run
        self.created = created
        self.started = started
        self.elapsed = now - started
        self.is_concluded = now >= run.concluded_at
        # After an abort no step starts, and steps in progress are aborting.
        is_aborted = run.aborted_at is not None and now >= run.aborted_at
        self.abort_elapsed = (run.aborted_at or 0) - started if is_aborted else math.inf
        self.visible_until = min(self.elapsed, self.abort_elapsed)

    def serialize_nodes(self, steps: Sequence[Step], scripts: Sequence[StepScript]) -> list[Json]:
        """Return the nodes of steps; a run does not reach those without a script."""
        return [self._serialize_node(*pair) for pair in zip_longest(steps, scripts)]

    def _serialize_node(self, step: Step, script: StepScript | None) -> Json:
        node = _definition_node(step)
        if step.kind not in {"Workflow", "LoopWorkflow", "Approval"}:
            node["settings"] = {
                "maxAttempts": MAX_ATTEMPTS,
                "backoff": {"type": "fixed", "delay": BACKOFF_SECONDS},
            }
        if script is None or script.start > self.visible_until:
            return node
        if step.steps:
            node["spec"]["steps"] = self.serialize_nodes(step.steps, script.steps)
            node["response"] = self.group_response(script.start, script.end, script.final_status)
        elif response := self._leaf_response(script):
            node["response"] = response
        return node

    def group_response(self, start: float, end: float, final_status: str) -> Json:
        response: Json = {"status": "waiting", "startTime": self._timestamp(start)}
        if end > self.abort_elapsed:
            return response | self._aborted_response()
        if end <= self.elapsed:
            response |= {"status": final_status, "endTime": self._timestamp(end)}
        return response

    def _leaf_response(self, script: StepScript) -> Json | None:
        if script.final_status == "skipped":
            return {"status": "skipped"}
        attempt, since, status = script.phase(self.visible_until)
        start = self._timestamp(script.start)
        retries: Json = {"attempts": attempt, "maxAttempts": MAX_ATTEMPTS}
        retries["timestamp"] = self._timestamp(since)
        response: Json = {"status": status, "retries": retries, "startTime": start}
        if data := self.created.get(script.step.ref):
            response["data"] = data
        if script.end <= self.visible_until:
            response |= {"status": script.final_status, "endTime": self._timestamp(script.end)}
            if script.error:
                response["error"] = {"code": script.error[0], "message": script.error[1]}
            return response
        if self.visible_until == self.abort_elapsed:
            return response | self._aborted_response()
        if status is None:
            return None
        if status == "retrying":
            code, message = script.error or (500, "Attempt failed, will be tried again")
            response["error"] = {"code": code, "message": message}
            next_start = script.retries[attempt - 1][1]
            if next_start == math.inf:  # postponed again and again
                postponed = math.floor((self.visible_until - since) / BACKOFF_SECONDS) + 1
                next_start = since + BACKOFF_SECONDS * postponed
            retries["nextAttempt"] = self._timestamp(next_start) + 1  # in the future
        else:
            retries["initialCheckTime"] = start
        return response

    def _aborted_response(self) -> Json:
        if not self.is_concluded:
            return {"status": "aborting"}
        return {"status": self.run.outcome, "endTime": int(self.run.concluded_at)}

    def _timestamp(self, offset: float) -> int:
        return int(self.started + offset)
