"""The sandbox's world: its catalog and runs as a function of seed and time.

Pure: no I/O and no clock; callers pass the time. The same seed produces the same runs with the same
ids at the same times, also after a restart, which loses only aborts and runs started by hand.
Preset runs and daily jams also depend on the time when the scenario opened.
"""

from collections.abc import Iterator
from typing import Any

from .catalog import Pipeline, Project, ReleaseFlow
from .history import HISTORY_SECONDS, Abort, History, Run
from .scenarios import SCENARIOS
from .simulation import RunScript


class StartForbidden(Exception):
    """The concurrency policy forbids a second run while one is in flight."""


class World:
    def __init__(
        self,
        seed: int = 1,
        scenario: str = "everyday",
        *,
        opened_at: float = 0.0,
        origin: float = 0.0,
        abort_seconds: tuple[float, float] = (2.0, 6.0),
        history_seconds: float = HISTORY_SECONDS,
    ) -> None:
        """Build the world of a scenario that opened at `opened_at`.

        The schedule is the same at the same distance from any `origin`. Both are in seconds since
        1970. Lists of runs reach back `history_seconds`.
        """
        self.seed = seed
        self.abort_seconds = abort_seconds
        self.projects: tuple[Project, ...] = SCENARIOS[scenario].projects()
        self._histories = {
            flow: History(seed, flow, opened_at, origin, history_seconds)
            for flow in self.list_flows()
        }

    def list_flows(self) -> Iterator[ReleaseFlow]:
        for project in self.projects:
            for pipeline in project.pipelines:
                yield from pipeline.flows.values()

    def find_project(self, project_id: str) -> Project | None:
        return next((p for p in self.projects if p.id == project_id), None)

    def find_pipeline(self, project_id: str, pipeline_id: str) -> Pipeline | None:
        project = self.find_project(project_id)
        pipelines = project.pipelines if project else ()
        return next((p for p in pipelines if p.id == pipeline_id), None)

    def find_flow(self, project_id: str, pipeline_id: str, stage: str) -> ReleaseFlow | None:
        """Return the flow of a stage, in any spelling of its name."""
        pipeline = self.find_pipeline(project_id, pipeline_id)
        return pipeline.flows.get(stage.capitalize()) if pipeline else None

    def list_runs(self, flow: ReleaseFlow, now: float) -> Iterator[Run]:
        """Yield the runs of a flow, newest first."""
        return self._histories[flow].newest_first(now)

    def list_in_flight_since(self, flow: ReleaseFlow, since: float, now: float) -> list[Run]:
        """Return a flow's runs that concluded at `since`, later or not yet, newest first."""
        return self._histories[flow].in_flight_since(since, now)

    def find_run(self, flow: ReleaseFlow, run_id: str, now: float) -> Run | None:
        return self._histories[flow].find_run(run_id, now)

    def get_script(self, run: Run) -> RunScript:
        return self._histories[run.flow].get_script(run)

    def run_status(self, run: Run, now: float) -> str:
        # A concluded run needs no script, which is expensive to compute.
        return run.outcome if now >= run.concluded_at else run.status(now, self.get_script(run))

    def start_run(self, flow: ReleaseFlow, now: float, body: dict[str, Any]) -> Run:
        """Start a run by hand; raise StartForbidden if the concurrency policy forbids it."""
        history = self._histories[flow]
        if flow.concurrency_policy == "forbid" and history.in_flight(now):
            raise StartForbidden
        run = history.find_run(history.start_run(now, body), now)
        assert run is not None, "a run that has just been started exists"
        return run

    def abort_run(
        self, flow: ReleaseFlow, run_id: str, now: float, *, at_once: bool = False
    ) -> Run | None:
        """Abort a run in flight; no effect on a run that is aborting or has concluded."""
        history = self._histories[flow]
        run = history.find_run(run_id, now)
        if (
            run is None
            or now >= run.concluded_at
            or (run.aborted_at is not None and run.aborted_at <= now)
        ):
            return run
        history.abort_run(run, self._make_abort(run, now, at_once=at_once))
        return history.find_run(run_id, now)

    def _make_abort(self, run: Run, now: float, *, at_once: bool) -> Abort:
        fraction = int(run.id[-6:], 16) / 0x1000000
        low, high = self.abort_seconds
        seconds = 0 if at_once else low + (high - low) * fraction
        is_started = run.started_at is not None and run.started_at <= now
        if "ignores-aborts" in run.flow.behaviours and is_started:
            return Abort(now, now + 20 + 20 * fraction, "success")
        if "slow-aborts" in run.flow.behaviours and is_started:
            # Undocumented: whether an abort succeeds, and how long it takes.
            if fraction < 1 / 3:
                return Abort(now, now + 240 + 240 * fraction, "aborted")
            return Abort(now, now + seconds + 8, "success" if fraction < 2 / 3 else "failure")
        return Abort(now, now + seconds, "aborted")
