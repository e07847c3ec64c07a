"""The JSON of responses: the catalog, runs with their names, and the tree of steps."""

import time
from collections.abc import Callable, Sequence

from .catalog import SECRET_PREFIX, STAGES, TEAM_ID, Pipeline, Project, ReleaseFlow, Step
from .history import Run
from .http import Json
from .simulation import BACKOFF_SECONDS, RunScript, StepScript, current_event, next_attempt_time
from .world import World

type TimeFormatter = Callable[[float], str]

API_VERSION = "v1.2"
MAX_ATTEMPTS = 3
CREATED_AT = 1_735_689_600.0
"""When projects, pipelines and flows were created: the beginning of 2025."""


# --- times ----------------------------------------------------------------------------------------


def format_iso(timestamp: float) -> str:
    """Format a time as the documentation does for projects, teams and tokens."""
    return _format_utc(timestamp, "%Y-%m-%dT%H:%M:%S") + f".{_milliseconds(timestamp):03}Z"


def format_spaced(timestamp: float) -> str:
    """Format a time as the documentation does for runs: with a space."""
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
    # Truncated, not rounded: 999.7 ms must not become 1000.
    return int(timestamp * 1000) % 1000


# --- catalog and runs -----------------------------------------------------------------------------


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
    """Serialize a pipeline as `get pipeline` does: without id and times."""
    objects = [{"id": pipeline.service, "type": "service", "stage": stage} for stage in STAGES]
    data: Json = {"name": pipeline.name, "nfObjects": objects}
    if pipeline.description:
        data["description"] = pipeline.description
    return data


def serialize_release_flow(flow: ReleaseFlow, status: str, format_time: TimeFormatter) -> Json:
    definition_fields = serialize_extras(flow)
    definition_fields.pop("refs", None)  # only in runs
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


def serialize_run(
    world: World, run: Run, now: float, format_time: TimeFormatter, updated: str = "exact"
) -> Json:
    """Serialize a run as lists do; `updated` is the choice `updated-at`."""
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
    if updated == "created":
        updated_at = run.created_at
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


def serialize_run_detail(
    world: World, run: Run, now: float, format_time: TimeFormatter, updated: str = "exact"
) -> Json:
    data = serialize_run(world, run, now, format_time, updated)
    data |= {"apiVersion": API_VERSION, "spec": serialize_steps(run, world.get_script(run), now)}
    data |= serialize_extras(run.flow)
    if run.start_body and isinstance(run.start_body.get("arguments"), dict):
        data["arguments"] = data.get("arguments", {}) | run.start_body["arguments"]
    return data


# --- names of runs --------------------------------------------------------------------------------

_SUBJECTS = (
    "search facets", "refund rounding", "cookie banner", "rate limits", "dark theme",
    "invoice export", "retry on timeout", "node upgrade", "session cache", "currency table",
    "audit log", "slow query fix", "feature flags", "load shedding", "image sizes", "webhooks v2",
)  # fmt: skip
_DESCRIPTIONS = ("", "", "", "Weekly release train", "Requested by support, see ticket 4711.")

HOSTILE_NAMES = (
    '<b>Hotfix</b> & "quotes"',
    "🚀 Launch day 👩‍👩‍👧‍👦 فرق",
    "\u202eeman desrever\u202c and back",
    "إصدار جديد للمتجر",
    "<script>alert('run')</script>",
    "{{ run.name }} {% now 'Y' %} ${args.NAME}",
    "Zażółć gęślą jaźń " + "n" * 180,
    "  leading and trailing  ",
    "O'Brien; DROP TABLE runs; --",
    "line one\nline two",
)
HOSTILE_DESCRIPTION = 'Réf. <a href="javascript:alert(1)">ticket</a> — ' + "très " * 30


def generate_name(run: Run) -> str | None:
    """Return the name of a run; about one run in eight has none."""
    if run.start_body is not None:
        name = run.start_body.get("name")
        return str(name) if name is not None else None
    hash_value = int(run.id[:8], 16)
    if "hostile-names" in run.flow.behaviours and hash_value % 3 == 0:
        return HOSTILE_NAMES[hash_value // 3 % len(HOSTILE_NAMES)]
    if hash_value % 8 == 0:
        return None
    subject = _SUBJECTS[hash_value // 8 % len(_SUBJECTS)]
    if hash_value % 29 == 1:
        return f"Hotfix {subject}"
    if hash_value % 31 == 1:
        return f"Rollback {subject}"
    return f"{subject[0].upper()}{subject[1:]} {(run.key.slot or 0) % 10000}"


def generate_description(run: Run) -> str | None:
    if run.start_body is not None:
        description = run.start_body.get("description")
        return str(description) if description is not None else None
    hash_value = int(run.id[9:13], 16)
    if "hostile-names" in run.flow.behaviours and hash_value % 7 == 0:
        return HOSTILE_DESCRIPTION
    return _DESCRIPTIONS[hash_value % len(_DESCRIPTIONS)] or None


# --- steps ----------------------------------------------------------------------------------------


def serialize_definition(flow: ReleaseFlow) -> Json:
    """Return the flow's definition: the tree without responses."""
    return _root_node([_definition_node(step) for step in flow.steps])


def serialize_extras(flow: ReleaseFlow) -> Json:
    """Return the fields beside the tree in a definition and in a run, including the secrets."""
    fields: Json = {"options": {"concurrencyPolicy": flow.concurrency_policy}}
    if "holds-secrets" in flow.behaviours:
        fields["arguments"] = {
            "REGION": "europe-west",
            "DB_PASSWORD": f"{SECRET_PREFIX}argument-{flow.pipeline}",
        }
        fields["triggers"] = [
            {
                "ref": "push",
                "vcsService": "github",
                "repoUrl": f"https://github.example/acme/{flow.pipeline}",
                "branchRestrictions": ["main"],
            },
            {
                "kind": "webhook",
                "ref": "hook",
                "spec": {"token": f"{SECRET_PREFIX}trigger-{flow.key}"},
            },
        ]
        fields["refs"] = {
            "build": {"sha": "0" * 40, "pullSecret": f"{SECRET_PREFIX}ref-{flow.pipeline}"}
        }
    return fields


def serialize_steps(run: Run, script: RunScript, now: float) -> Json:
    """Return the tree of a run as of now."""
    if run.started_at is None or now < run.started_at:
        return serialize_definition(run.flow)
    serializer = _StepSerializer(run, script, run.started_at, now)
    response = serializer.group_response(0, run.concluded_at - run.started_at, run.outcome)
    return _root_node(serializer.serialize_nodes(run.flow.steps, script.steps)) | {
        "response": response
    }


def _root_node(steps: list[Json]) -> Json:
    return {"kind": "Workflow", "spec": {"type": "sequential", "steps": steps}}


def _definition_node(step: Step) -> Json:
    """Return a node without a response, and its child nodes."""
    node: Json = {"kind": step.kind, "spec": dict(step.spec)}
    if step.ref:
        node["ref"] = step.ref
    if step.condition:
        node["condition"] = step.condition
    if step.timeout_seconds:
        node["timeoutDuration"] = step.timeout_seconds
    if step.skip:
        node["skipNodeExecution"] = "true"
    if step.steps:
        node["spec"]["steps"] = [_definition_node(child) for child in step.steps]
    return node


class _StepSerializer:
    """Serializes nodes as of one moment. Times are in seconds since the start of the run."""

    def __init__(self, run: Run, script: RunScript, started: float, now: float) -> None:
        self.run = run
        self.script = script
        self.started = started
        self.elapsed = now - started
        self.is_concluded = now >= run.concluded_at
        is_aborted = run.aborted_at is not None and now >= run.aborted_at
        # After an abort no step starts, and steps in progress are aborting.
        self.abort_elapsed = (
            run.aborted_at - started if is_aborted and run.aborted_at is not None else None
        )
        self.visible_until = (
            self.elapsed if self.abort_elapsed is None else min(self.elapsed, self.abort_elapsed)
        )

    def serialize_nodes(self, steps: Sequence[Step], scripts: Sequence[StepScript]) -> list[Json]:
        script_by_step = {id(script.step): script for script in scripts}
        return [self._serialize_node(step, script_by_step.get(id(step))) for step in steps]

    def _serialize_node(self, step: Step, script: StepScript | None) -> Json:
        node = _definition_node(step)
        if step.kind not in {"Workflow", "LoopWorkflow", "Approval"}:
            node["settings"] = {
                "maxAttempts": MAX_ATTEMPTS,
                "backoff": {"type": "fixed", "delay": int(BACKOFF_SECONDS)},
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
        if self.abort_elapsed is not None and end > self.abort_elapsed:
            return response | self._aborted_response()
        if end <= self.elapsed:
            response |= {"status": final_status, "endTime": self._timestamp(end)}
        return response

    def _leaf_response(self, script: StepScript) -> Json | None:
        if script.final_status == "skipped":
            return {"status": "skipped"}
        event = current_event(script, self.visible_until)
        if event is None:
            return None
        start = self._timestamp(script.start)
        retries = {"attempts": event.attempt, "maxAttempts": MAX_ATTEMPTS}
        retries["timestamp"] = self._timestamp(event.start)
        response: Json = {"status": event.node_status, "retries": retries, "startTime": start}
        if script.end <= self.visible_until:
            response |= {"status": script.final_status, "endTime": self._timestamp(script.end)}
            if script.error:
                response["error"] = {"code": script.error[0], "message": script.error[1]}
            if data := self._response_data(script):
                response["data"] = data
            return response
        if self.abort_elapsed is not None:
            return response | self._aborted_response()
        if event.node_status is None:
            return None
        if event.node_status == "retrying":
            code, message = script.error or (500, "Attempt failed, will be tried again")
            response["error"] = {"code": code, "message": message}
            # Rounded up, since it is in the future.
            retries["nextAttempt"] = (
                self._timestamp(next_attempt_time(script, self.visible_until)) + 1
            )
        else:
            retries["initialCheckTime"] = start
        return response

    def _aborted_response(self) -> Json:
        if not self.is_concluded:
            return {"status": "aborting"}
        return {"status": self.run.outcome, "endTime": int(self.run.concluded_at)}

    def _response_data(self, script: StepScript) -> Json | None:
        if script.final_status != "success":
            return None
        if script.step.kind == "Build":
            return {"branch": "main", "sha": (self.run.id.replace("-", "") * 2)[:40]}
        if script.step.kind == "JobRun" and "holds-secrets" in self.run.flow.behaviours:
            return {"connection": f"postgres://app:{SECRET_PREFIX}data@db.internal/app"}
        return None

    def _timestamp(self, offset: float) -> int:
        return int(self.started + offset)
