"""The sandbox's world: what exists, and what happens in it, as a function of seed and time.

Pure: no input or output, and no clock; whoever asks says what time it is. The same seed gives
the same runs with the same ids at the same times, also after a restart. Only aborts and runs
started by hand are lost then. What a scenario has staged, and when a flow is jammed, depends on
when it opened, too.
"""

from collections.abc import Iterator
from typing import Any

from .catalog import Flow, Pipeline, Project
from .history import KEPT, Abort, History, Run
from .life import Life
from .scenarios import SCENARIOS


class Busy(Exception):
    """The flow forbids a second run while one is in flight."""


class World:
    def __init__(
        self,
        seed: int = 1,
        scenario: str = "everyday",
        *,
        opened: float = 0.0,
        origin: float = 0.0,
        abort_seconds: tuple[float, float] = (2.0, 6.0),
        kept: float = KEPT,
    ) -> None:
        """Build the world of a scenario that opened then; some scenarios stage runs around it.

        What is scheduled is the same as long after any `origin` (both in seconds since 1970).
        Lists of runs reach back `kept` seconds.
        """
        self.seed = seed
        self.abort_seconds = abort_seconds
        self.projects: tuple[Project, ...] = SCENARIOS[scenario].projects()
        self._histories = {flow: History(seed, flow, opened, origin, kept) for flow in self.flows()}

    def flows(self) -> Iterator[Flow]:
        for project in self.projects:
            for pipeline in project.pipelines:
                yield from pipeline.flows.values()

    def project(self, project_id: str) -> Project | None:
        return next((p for p in self.projects if p.id == project_id), None)

    def pipeline(self, project_id: str, pipeline_id: str) -> Pipeline | None:
        project = self.project(project_id)
        found = project.pipelines if project else ()
        return next((p for p in found if p.id == pipeline_id), None)

    def flow(self, project_id: str, pipeline_id: str, stage: str) -> Flow | None:
        """Find the flow of a stage, in any spelling."""
        pipeline = self.pipeline(project_id, pipeline_id)
        return pipeline.flows.get(stage.capitalize()) if pipeline else None

    def runs(self, flow: Flow, now: float) -> Iterator[Run]:
        """Yield the runs of a flow, newest first."""
        return self._histories[flow].newest_first(now)

    def run(self, flow: Flow, run_id: str, now: float) -> Run | None:
        return self._histories[flow].find(run_id, now)

    def life(self, run: Run) -> Life:
        return self._histories[run.flow].life(run)

    def status(self, run: Run, now: float) -> str:
        # The life of a concluded run is not needed, and is the dear part.
        return run.outcome if now >= run.concluded else run.status(now, self.life(run))

    def start(self, flow: Flow, now: float, request: dict[str, Any]) -> Run:
        """Start a run by hand, as the flow's concurrency policy has it."""
        history = self._histories[flow]
        if flow.policy == "forbid" and history.in_flight(now):
            raise Busy
        run = history.find(history.start(now, request), now)
        assert run is not None, "a run that has just been started exists"
        return run

    def abort(self, flow: Flow, run_id: str, now: float, *, at_once: bool = False) -> Run | None:
        """Abort a run that is in flight; one that is aborting or concluded stays as it is."""
        history = self._histories[flow]
        run = history.find(run_id, now)
        if run is None or now >= run.concluded or (run.aborted is not None and run.aborted <= now):
            return run
        history.abort(run, self._abort(run, now, at_once=at_once))
        return history.find(run_id, now)

    def _abort(self, run: Run, now: float, *, at_once: bool) -> Abort:
        chance = int(run.id[-6:], 16) / 0x1000000
        low, high = self.abort_seconds
        seconds = 0 if at_once else low + (high - low) * chance
        if "deaf" in run.flow.quirks and run.started is not None and run.started <= now:
            return Abort(now, now + 20 + 20 * chance, "success")
        if "stubborn" in run.flow.quirks and run.started is not None and run.started <= now:
            # The API does not say that an abort succeeds, nor how long it takes.
            if chance < 1 / 3:
                return Abort(now, now + 240 + 240 * chance, "aborted")
            return Abort(now, now + seconds + 8, "success" if chance < 2 / 3 else "failure")
        return Abort(now, now + seconds, "aborted")
