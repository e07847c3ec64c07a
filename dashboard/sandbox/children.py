"""What steps start: job runs and builds, one for each attempt of a step.

Each is a function of its run, its step and the attempt; of aborts the run keeps the time. An abort
of a child changes nothing in its run, whose step waits on.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from uuid import NAMESPACE_URL, uuid5

from .runs import Run
from .simulation import StepScript, list_leaf_scripts
from .steps import Step

ABORT_SECONDS = 3.0
"""From the abort of a child to its end."""
SURVIVAL_SECONDS = 900.0
"""From the end of an aborted run to the end of the job runs that outlive it."""


@dataclass(frozen=True)
class Child:
    """A job run or a build. Times are in seconds since 1970."""

    run: Run
    step: Step
    attempt: int
    started_at: float
    due_at: float
    """When it ends unless it is aborted; infinite: never."""
    error: str
    """Why it fails; "": it succeeds."""

    @cached_property
    def id(self) -> str:
        """A UUID of a job run, a slug of a build."""
        key = f"{self.run.key}/{self.step.ref}/{self.attempt}"
        if self.step.kind == "JobRun":
            return str(uuid5(NAMESPACE_URL, f"sandbox:{key}"))
        return f"joyous-view-{int.from_bytes(blake2b(key.encode(), digest_size=5).digest())}"

    @cached_property
    def name(self) -> str:
        """The name of the run of a job, or of the container of a build."""
        digest = blake2b(self.id.encode(), digest_size=12)
        return f"{self.step.workload[1]}-{digest.hexdigest()}"

    @property
    def concluded_at(self) -> float:
        lasting = SURVIVAL_SECONDS if "survives-abort" in self.step.behaviours else 0
        aborted_at = self.run.child_aborts.get(self.id, math.inf)
        return min(self.due_at, self.run.concluded_at + lasting, aborted_at + ABORT_SECONDS)

    @property
    def is_cut_short(self) -> bool:
        """Whether it ends by an abort, its own or that of its run."""
        return self.concluded_at < self.due_at


def list_children(run: Run) -> Iterator[Child]:
    """Yield what a run starts in its life, the attempts of a step in order."""
    if run.started_at is None:
        return
    leaves = list_leaf_scripts(run.script.steps)
    last_start = run.concluded_at if run.aborted_at is None else run.aborted_at
    for leaf in leaves:
        if leaf.step.kind not in {"JobRun", "Build"} or leaf.final_status in {"skipped", "invalid"}:
            continue
        waiter = next((other for other in leaves if other.step.awaits == leaf.step.ref), leaf)
        for attempt, (start, end, error) in enumerate(_list_attempts(leaf, waiter), 1):
            started_at, due_at = run.started_at + start, run.started_at + end
            if run.outcome == "success":  # perhaps despite an abort
                due_at = min(due_at, run.concluded_at)
            if started_at < last_start:
                yield Child(run, leaf.step, attempt, started_at, due_at, error)


def _list_attempts(leaf: StepScript, waiter: StepScript) -> Iterator[tuple[float, float, str]]:
    """Yield start, end and error of each attempt; the last ends with the step that awaits it."""
    start, (_, message) = leaf.start, waiter.error or leaf.error or (1, "exit code 1")
    for failed_at, next_start in leaf.retries:
        yield start, failed_at, message
        start = next_start
    if start < math.inf:
        yield start, waiter.end, "" if waiter.final_status == "success" else message
