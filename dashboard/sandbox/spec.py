"""The node tree of a run, as the detail form of a run and a release flow's definition show it."""

from collections.abc import Sequence
from typing import Any

from .catalog import SECRET, Flow, Step
from .history import Run
from .life import BACKOFF, Life, Played, beat_of, next_attempt

type Json = dict[str, Any]

API_VERSION = "v1.2"
MAX_ATTEMPTS = 3


def definition(flow: Flow) -> Json:
    """Write the flow as its definition: the tree without any response."""
    return _root([_node(step) for step in flow.steps])


def extras(flow: Flow) -> Json:
    """Write what stands next to the tree in a definition and in a run; here are the secrets."""
    more: Json = {"options": {"concurrencyPolicy": flow.policy}}
    if "secrets" in flow.quirks:
        more["arguments"] = {
            "REGION": "europe-west",
            "DB_PASSWORD": f"{SECRET}argument-{flow.pipeline}",
        }
        more["triggers"] = [
            {
                "ref": "push",
                "vcsService": "github",
                "repoUrl": f"https://github.example/acme/{flow.pipeline}",
                "branchRestrictions": ["main"],
            },
            {"kind": "webhook", "ref": "hook", "spec": {"token": f"{SECRET}trigger-{flow.key}"}},
        ]
        more["refs"] = {"build": {"sha": "0" * 40, "pullSecret": f"{SECRET}ref-{flow.pipeline}"}}
    return more


def tree(run: Run, life: Life, now: float) -> Json:
    """Write the tree of a run as it stands now."""
    if run.started is None or now < run.started:
        return definition(run.flow)
    root = _Tree(run, life, run.started, now)
    response = root.group_response(0, run.concluded - run.started, run.outcome)
    return _root(root.nodes(run.flow.steps, life.steps)) | {"response": response}


def _root(steps: list[Json]) -> Json:
    return {"kind": "Workflow", "spec": {"type": "sequential", "steps": steps}}


def _node(step: Step) -> Json:
    """Write a node without its response and, in a group, with steps that have none."""
    node: Json = {"kind": step.kind, "spec": dict(step.spec)}
    if step.ref:
        node["ref"] = step.ref
    if step.condition:
        node["condition"] = step.condition
    if step.timeout:
        node["timeoutDuration"] = step.timeout
    if step.skip:
        node["skipNodeExecution"] = "true"
    if step.steps:
        node["spec"]["steps"] = [_node(child) for child in step.steps]
    return node


class _Tree:
    """Writes nodes as of one moment. Times inside are seconds since the run started."""

    def __init__(self, run: Run, life: Life, started: float, now: float) -> None:
        self.run = run
        self.life = life
        self.started = started
        self.after = now - started
        self.over = now >= run.concluded
        aborted = run.aborted is not None and now >= run.aborted
        # From the abort on nothing new begins, and what is open is on its way out.
        self.cut = run.aborted - started if aborted and run.aborted is not None else None
        self.until = self.after if self.cut is None else min(self.after, self.cut)

    def nodes(self, steps: Sequence[Step], played: Sequence[Played]) -> list[Json]:
        done = {id(one.step): one for one in played}
        return [self._node(step, done.get(id(step))) for step in steps]

    def _node(self, step: Step, played: Played | None) -> Json:
        node = _node(step)
        if step.kind not in {"Workflow", "LoopWorkflow", "Approval"}:
            node["settings"] = {
                "maxAttempts": MAX_ATTEMPTS,
                "backoff": {"type": "fixed", "delay": int(BACKOFF)},
            }
        if played is None or played.start > self.until:
            return node
        if step.steps:
            node["spec"]["steps"] = self.nodes(step.steps, played.steps)
            node["response"] = self.group_response(played.start, played.end, played.verdict)
        elif response := self._leaf_response(played):
            node["response"] = response
        return node

    def group_response(self, start: float, end: float, verdict: str) -> Json:
        response: Json = {"status": "waiting", "startTime": self._seconds(start)}
        if self.cut is not None and end > self.cut:
            return response | self._cut_short()
        if end <= self.after:
            response |= {"status": verdict, "endTime": self._seconds(end)}
        return response

    def _leaf_response(self, leaf: Played) -> Json | None:
        if leaf.verdict == "skipped":
            return {"status": "skipped"}
        beat = beat_of(leaf, self.until)
        if beat is None:
            return None
        start = self._seconds(leaf.start)
        retries = {"attempts": beat.attempt, "maxAttempts": MAX_ATTEMPTS}
        retries["timestamp"] = self._seconds(beat.at)
        response: Json = {"status": beat.node_status, "retries": retries, "startTime": start}
        if leaf.end <= self.until:
            response |= {"status": leaf.verdict, "endTime": self._seconds(leaf.end)}
            if leaf.error:
                response["error"] = {"code": leaf.error[0], "message": leaf.error[1]}
            if data := self._data(leaf):
                response["data"] = data
            return response
        if self.cut is not None:
            return response | self._cut_short()
        if beat.node_status is None:
            return None
        if beat.node_status == "retrying":
            code, message = leaf.error or (500, "Attempt failed, will be tried again")
            response["error"] = {"code": code, "message": message}
            # Rounded up: it is ahead.
            retries["nextAttempt"] = self._seconds(next_attempt(leaf, self.until)) + 1
        else:
            retries["initialCheckTime"] = start
        return response

    def _cut_short(self) -> Json:
        if not self.over:
            return {"status": "aborting"}
        return {"status": self.run.outcome, "endTime": int(self.run.concluded)}

    def _data(self, leaf: Played) -> Json | None:
        if leaf.verdict != "success":
            return None
        if leaf.step.kind == "Build":
            return {"branch": "main", "sha": (self.run.id.replace("-", "") * 2)[:40]}
        if leaf.step.kind == "JobRun" and "secrets" in self.run.flow.quirks:
            return {"connection": f"postgres://app:{SECRET}data@db.internal/app"}
        return None

    def _seconds(self, at: float) -> int:
        return int(self.started + at)
