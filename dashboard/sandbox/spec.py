"""The node tree of a run, as the detail form of a run and a release flow's definition show it."""

from collections.abc import Sequence
from typing import Any

from .catalog import SECRET_PREFIX, ReleaseFlow, Step
from .history import Run
from .life import BACKOFF_SECONDS, RunScript, StepScript, current_event, next_attempt_time

type Json = dict[str, Any]

API_VERSION = "v1.2"
MAX_ATTEMPTS = 3


def serialize_definition(flow: ReleaseFlow) -> Json:
    """Write the flow as its definition: the tree without any response."""
    return _root_node([_definition_node(step) for step in flow.steps])


def serialize_extras(flow: ReleaseFlow) -> Json:
    """Write what stands next to the tree in a definition and in a run; here are the secrets."""
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
    """Write the tree of a run as it stands now."""
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
    """Write a node without its response and, in a group, with steps that have none."""
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
    """Writes nodes as of one moment. Times inside are seconds since the run started."""

    def __init__(self, run: Run, script: RunScript, started: float, now: float) -> None:
        self.run = run
        self.script = script
        self.started = started
        self.elapsed = now - started
        self.is_concluded = now >= run.concluded_at
        is_aborted = run.aborted_at is not None and now >= run.aborted_at
        # From the abort on nothing new begins, and what is open is on its way out.
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
            # Rounded up: it is ahead.
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
