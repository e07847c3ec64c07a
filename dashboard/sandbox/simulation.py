"""The script of one run: when each of its steps starts and ends, and how the run ends.

A script is a function of its key and the flow. Its times are in seconds after the start of the run;
queueing and aborts through the API are the business of `runs.py`.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple

from .catalog import PresetRun, PresetStep, ReleaseFlow
from .steps import Step

HOUR = 3600.0

RESPONSE_DELAY = 1.5
"""Seconds until a running node has a `response`."""

# Statuses of a node in progress, and of its run. The API has no "running" for nodes, and does not
# document when a run is `waiting` or in `async_wait`: a guess.
ACTIVE_NODE_STATUS = {
    "Approval": "approval_wait",
    "RunTemplate": "async_wait",
    "Action": "async_wait",
}
ACTIVE_RUN_STATUS = ACTIVE_NODE_STATUS | {"Condition": "waiting", "Release": "waiting"}
_STATUSES_BY_PRIORITY = ("running", "waiting", "async_wait", "approval_wait", "retrying")

HANGABLE_KINDS = frozenset({"JobRun", "Condition", "Release"})

ERRORS = {
    "Build": (
        (1, "Build failed: npm ERR! ERESOLVE could not resolve react@19.{n}\nFix the conflict."),
        (137, "Build ran out of memory after {n} s\nKilled"),
    ),
    "JobRun": (
        (1, 'Job run failed with exit code 1: lock timeout on "orders" after {n} s\nROLLBACK'),
        (124, "Job run job-{n}-x7 exceeded its active deadline of 600 s"),
        (1, "\x1b[31mError:\x1b[0m connect ECONNREFUSED 10.0.{n}.7:5432\n    at TCPConnectWrap"),
    ),
    "Release": (
        (408, "Deployment was not ready within 1800 seconds: pod-{n} is in CrashLoopBackOff"),
        (404, "Image registry.example/acme@sha256:7d{n}e0 was not found"),
    ),
    "Condition": ((408, "Condition was not met before the timeout: {n} probes answered 503"),),
    "AddonBackup": ((500, "Backup failed: not enough disk space, {n} MB free"),),
    "RunTemplate": ((422, "Template run failed: {n} of 941 checks did not pass\n✗ pays by card"),),
    "Action": ((409, "Service cannot be restarted while it is scaling"),),
}
"""Errors by the kind of a step, with a number of each run; other kinds do not fail."""
INVALID_ERROR = (400, "Reference ${refs.image.tag} could not be resolved")
TIMEOUT_ERROR = (408, "No result within the time allowed")
UNKNOWN_ERROR = (500, "State of this node could not be determined")

_FAILURE_MODES = (
    ("failure", 0.085),
    ("retry", 0.07),
    ("abort", 0.035),
    ("skip", 0.012),
    ("invalid", 0.008),
    ("unknown", 0.005),
    ("hang", 0.006),
)


class StepScript(NamedTuple):
    """The course of a step: a leaf with its attempts, or a group with its steps."""

    step: Step
    start: float
    end: float
    final_status: str
    retries: tuple[tuple[float, float], ...] = ()
    """Of each failed attempt before the last: when it failed, and when the next one starts."""
    error: tuple[int, str] | None = None
    steps: "tuple[StepScript, ...]" = ()

    def phase(self, elapsed: float) -> tuple[int, float, str | None]:
        """Return a leaf's attempt, and since when its node has which status (None: no response)."""
        attempt, since = 1, self.start + RESPONSE_DELAY
        for failed_at, next_start in self.retries:
            if elapsed < failed_at:
                break
            if elapsed < next_start:
                return attempt, failed_at, "retrying"
            attempt, since = attempt + 1, next_start
        if elapsed < since:
            return attempt, self.start, None
        return attempt, since, ACTIVE_NODE_STATUS.get(self.step.kind, "waiting")

    def run_status(self, elapsed: float) -> str:
        """Return the status of a run in which only this leaf is in progress."""
        status = self.phase(elapsed)[2]
        if status in {None, "retrying"}:
            return status or "running"
        return ACTIVE_RUN_STATUS.get(self.step.kind, "running")


class RunScript(NamedTuple):
    pending_seconds: float
    """Seconds between creation and start without a queue."""
    duration_seconds: float
    """Seconds from start to end, unless aborted through the API."""
    outcome: str
    abort_after_seconds: float | None
    """Seconds from the start until a colleague aborts the run; None: no such abort."""
    steps: tuple[StepScript, ...]

    def status_at(self, elapsed: float) -> str:
        """Return the status of the run at a time between its start and its end."""
        leaves = list_leaf_scripts(self.steps)
        statuses = [leaf.run_status(elapsed) for leaf in leaves if leaf.start <= elapsed < leaf.end]
        return max(statuses, key=_STATUSES_BY_PRIORITY.index, default="running")

    def changed_at(self, elapsed: float) -> float:
        """Return the time of the last change up to `elapsed`."""
        times = [0.0]
        for leaf in list_leaf_scripts(self.steps):
            times += [leaf.start, leaf.start + RESPONSE_DELAY, leaf.end, *sum(leaf.retries, ())]
        return max(time for time in times if time <= elapsed)


def simulate(
    key: str,
    flow: ReleaseFlow,
    *,
    preset: PresetRun | None = None,
    is_scheduled: bool = True,
    hang_seconds: float = 0,
    breaks: bool = False,
) -> RunScript:
    """Return the script of a run; with `hang_seconds` it always hangs for that long.

    If it `breaks`, it fails at the same step with the same error as all that do.
    """
    # Only random() is used, since its numbers are the same in all versions of Python.
    rng = Random(key).random
    failure_mode = "hang" if hang_seconds else _draw_failure_mode(flow, rng())
    failure_mode = "break" if breaks else failure_mode
    if preset or (not is_scheduled and failure_mode in {"skip", "abort"}):
        failure_mode = "success"  # a run started by hand is neither skipped nor aborted
    pending_seconds = 1.5 + 4 * rng()
    if failure_mode == "skip":
        return RunScript(pending_seconds, 0, "skipped", None, ())
    simulator = _Simulator(flow, failure_mode, rng, hang_seconds or (0.75 + 0.75 * rng()) * HOUR)
    if preset:
        simulator.preset_steps = {step.ref: step for step in preset.steps}
    steps, end = simulator.simulate_steps(flow.steps, 0.0, parallel=False)
    if failure_mode == "abort":
        abort_after = (0.2 + 0.7 * rng()) * end
        return RunScript(
            pending_seconds, abort_after + 3 + 15 * rng(), "aborted", abort_after, steps
        )
    return RunScript(pending_seconds, end, simulator.outcome, None, steps)


def _draw_failure_mode(flow: ReleaseFlow, random_value: float) -> str:
    if "always-succeeds" in flow.behaviours:
        return "success"
    for failure_mode, probability in _FAILURE_MODES:
        random_value -= probability
        if random_value < 0:
            does_not_hang = failure_mode == "hang" and "hangs" not in flow.behaviours
            return "success" if does_not_hang else failure_mode
    return "success"


class _Simulator:
    """Simulates the steps of one run; its failure mode affects one leaf."""

    def __init__(
        self, flow: ReleaseFlow, failure_mode: str, rng: Callable[[], float], hang_seconds: float
    ) -> None:
        self.failure_mode = failure_mode
        self.rng = rng
        self.hang_seconds = hang_seconds
        self.outcome = "success"
        self.preset_steps: dict[str, PresetStep] = {}
        kinds = HANGABLE_KINDS if failure_mode == "hang" else ERRORS.keys()
        candidates = [n for n, leaf in enumerate(flow.leaves) if leaf.kind in kinds]
        self.affected_leaf = candidates[int(rng() * len(candidates))]
        if failure_mode == "break":
            self.affected_leaf = candidates[len(candidates) // 2]
        self.leaf_index = -1

    def simulate_steps(
        self, steps: Sequence[Step], start: float, *, parallel: bool
    ) -> tuple[tuple[StepScript, ...], float]:
        """Return the scripts of the steps that the run reaches, and the end of the last."""
        scripts: list[StepScript] = []
        end = start
        for step in steps:
            if self.outcome != "success" and not parallel:
                break
            simulate_step = self._simulate_group if step.steps else self._simulate_leaf
            scripts.append(simulate_step(step, start))
            end = max(end, scripts[-1].end)
            if not parallel:
                start = end
        return tuple(scripts), end

    def _simulate_group(self, step: Step, start: float) -> StepScript:
        outcome_before = self.outcome
        parallel = step.spec.get("type") == "parallel"
        scripts, end = self.simulate_steps(step.steps, start, parallel=parallel)
        final_status = "success" if self.outcome == outcome_before else self.outcome
        return StepScript(step, start, end, final_status, steps=scripts)

    def _simulate_leaf(self, step: Step, start: float) -> StepScript:
        if step.skip:
            return StepScript(step, start, start, "skipped")
        self.leaf_index += 1
        low, high = step.duration_range
        seconds = low + (high - low) * self.rng()
        attempts, status, error = 1, "success", None
        match self.failure_mode if self.leaf_index == self.affected_leaf else "success":
            case "failure":
                attempts, status, error = 3, "failure", _error(step.kind, seconds, self.rng())
            case "break":
                status, error = "failure", _error(step.kind, seconds)
            case "invalid":
                seconds, status, error = RESPONSE_DELAY + 1, "invalid", INVALID_ERROR
            case "unknown":
                status, error = "unknown", UNKNOWN_ERROR
            case "hang":
                # Minus the time before, so that the run, not the step, lasts that long.
                seconds = max(self.hang_seconds - start, 60)
                if self.rng() < 0.7:
                    status, error = "failure", TIMEOUT_ERROR
            case "retry":
                attempts = 2
        preset = self.preset_steps.get(step.ref)
        if preset:
            attempts = preset.attempts
            seconds = preset.duration_seconds if preset.duration_seconds < math.inf else seconds
        if status != "success":
            self.outcome = "unknown" if status == "unknown" else "failure"
        retries, end = self._simulate_attempts(start, seconds, attempts)
        if preset and preset.duration_seconds == math.inf:
            if attempts > 1:
                retries, error = (*retries, (end, math.inf)), _error(step.kind, start)
            end = math.inf
        return StepScript(step, start, end, status, retries, error)

    def _simulate_attempts(
        self, start: float, seconds: float, attempts: int
    ) -> tuple[tuple[tuple[float, float], ...], float]:
        """Return the retries, and the end of the last of `attempts`; all others fail."""
        retries = []
        for _ in range(attempts - 1):
            failed_at = start + max(seconds * 0.4, RESPONSE_DELAY + 1)
            start = failed_at + 10 + 15 * self.rng()
            retries.append((failed_at, start))
        return tuple(retries), start + max(seconds, RESPONSE_DELAY + 1)


def _error(kind: str, seconds: float, choice: float = 0) -> tuple[int, str]:
    """Return an error of a kind of step; `choice` is below 1, `seconds` give it its number."""
    errors = ERRORS[kind]
    code, message = errors[int(choice * len(errors))]
    return code, message.format(n=100 + round(seconds * 10) % 150)


def list_leaf_scripts(scripts: Sequence[StepScript]) -> list[StepScript]:
    """Return the scripts of the steps without substeps."""
    nested = ([s] if not s.steps else list_leaf_scripts(s.steps) for s in scripts)
    return list(itertools.chain.from_iterable(nested))
