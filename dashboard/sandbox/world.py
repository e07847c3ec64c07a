"""The sandbox's world: its catalog, and the runs of each release flow.

Pure: no I/O and no clock; callers pass the time. The same seed produces the same runs with the same
ids at the same times, also after a restart, which loses only aborts and runs started by hand.
Preset runs and daily jams also depend on the time when the scenario opened.
"""

import math
from collections.abc import Iterator
from operator import attrgetter
from typing import Any

from .catalog import Pipeline, Project, ReleaseFlow, list_flows
from .children import Child, list_children
from .errors import ApiError, not_found
from .runs import FlowRuns, Run
from .scenarios import SCENARIOS
from .simulation import HOUR


class World:
    def __init__(
        self,
        seed: int = 1,
        scenario: str = "everyday",
        *,
        opened_at: float,
        origin: float = 0.0,
        history_seconds: float = 72 * HOUR,
    ) -> None:
        """Build the world of a scenario that opened at `opened_at`.

        The schedule is the same at the same distance from any `origin`. Both are in seconds since
        1970. Lists of runs reach back `history_seconds`.
        """
        self.projects: tuple[Project, ...] = SCENARIOS[scenario].projects()
        self._runs = {
            flow: FlowRuns(seed, flow, opened_at, origin, history_seconds)
            for flow in self.list_flows()
        }

    def list_flows(self) -> Iterator[ReleaseFlow]:
        return list_flows(self.projects)

    def find_project(self, project_id: str) -> Project:
        """Return a project; this and other lookups raise ApiError if there is none."""
        project = next((p for p in self.projects if p.id == project_id), None)
        return project or not_found("Project")

    def find_pipeline(self, project_id: str, pipeline_id: str) -> Pipeline:
        pipelines = self.find_project(project_id).pipelines
        return next((p for p in pipelines if p.id == pipeline_id), None) or not_found("Pipeline")

    def find_flow(self, project_id: str, pipeline_id: str, stage: str) -> ReleaseFlow:
        """Return the flow of a stage, in any spelling of its name."""
        flows = self.find_pipeline(project_id, pipeline_id).flows
        return flows.get(stage.capitalize()) or not_found("Release flow")

    def list_runs(self, flow: ReleaseFlow, now: float) -> Iterator[Run]:
        """Yield the runs of a flow, newest first."""
        return self._runs[flow].newest_first(now)

    def list_in_flight(self, flow: ReleaseFlow, now: float) -> list[Run]:
        """Return the runs of a flow that have not concluded, newest first."""
        return self._runs[flow].in_flight(now)

    def find_run(self, flow: ReleaseFlow, run_id: str, now: float) -> Run:
        runs = (run for run in self.list_runs(flow, now) if run.id == run_id)
        return next(runs, None) or not_found("Release flow run")

    def list_children(
        self, project_id: str, kind: str, workload: tuple[str, str], now: float
    ) -> list[Child]:
        """Return the runs (JobRun) or builds (Build) of a job or service, the newest first."""
        flows = [flow for flow in self.list_flows() if flow.project == project_id]
        if not any(leaf.workload == workload for flow in flows for leaf in flow.leaves):
            not_found(workload[0].removesuffix("s").capitalize())
        children = [
            child
            for flow in flows
            for run in self.list_runs(flow, now)
            for child in list_children(run)
            if (child.step.kind, child.step.workload) == (kind, workload)
            and child.started_at <= now
        ]
        return sorted(children, key=attrgetter("started_at"), reverse=True)

    def start_run(self, flow: ReleaseFlow, now: float, body: dict[str, Any]) -> Run:
        """Start a run by hand; raise ApiError if the concurrency policy forbids it."""
        if flow.concurrency_policy == "forbid" and self.list_in_flight(flow, now):
            message = "A run is in progress, and the concurrency policy forbids another"
            raise ApiError(409, message)
        return self._runs[flow].start(now, body)

    def abort_run(self, flow: ReleaseFlow, run_id: str, now: float, seconds: float = 4) -> Run:
        """Abort a run in flight; no effect on a run that is aborting or has concluded.

        It ends after `seconds`, unless its flow's behaviours decide otherwise.
        """
        run = self.find_run(flow, run_id, now)
        if now < run.concluded_at and now < (run.aborted_at or math.inf):
            seconds, outcome = _draw_abort(run, now, seconds)
            self._runs[flow].abort(run, now, ends_at=now + seconds, outcome=outcome)
        return run


def _draw_abort(run: Run, now: float, seconds: float) -> tuple[float, str]:
    """Return how many seconds an abort takes, and how the run ends."""
    fraction = int(run.id[-6:], 16) / 0x1000000
    if run.started_at is None or now < run.started_at:
        return seconds, "aborted"
    if "ignores-aborts" in run.flow.behaviours:
        return 20 + 20 * fraction, "success"
    if "slow-aborts" in run.flow.behaviours:
        # Undocumented: whether an abort succeeds, and how long it takes.
        if fraction < 1 / 3:
            return 240 + 240 * fraction, "aborted"
        return seconds + 8, "success" if fraction < 2 / 3 else "failure"
    return seconds, "aborted"
