"""The script of one run: its steps, the duration of each, and the outcome.

A script is a function of seed, flow and run key. Its times are in seconds after the start of the
run; queueing and aborts are applied in `history.py`.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import NamedTuple

from .catalog import PresetRun, PresetStep, ReleaseFlow, Step

HOUR = 3600.0
EPOCH_SECONDS = 3 * HOUR
"""Length of the periods in which runs are scheduled, see `history.py`."""

RESPONSE_DELAY = 1.5
"""Seconds until a running node has a `response`."""
BACKOFF_SECONDS = 60.0
"""Seconds by which an attempt is postponed each time."""

# Statuses of a node in progress, and of its run. The API has no "running" for nodes, and does not
# document when a run is `waiting` or in `async_wait`: a guess.
ACTIVE_NODE_STATUS = {
    "Approval": "approval_wait",
    "RunTemplate": "async_wait",
    "Action": "async_wait",
}
ACTIVE_RUN_STATUS = {
    "Approval": "approval_wait",
    "RunTemplate": "async_wait",
    "Action": "async_wait",
    "Condition": "waiting",
    "Release": "waiting",
}
_STATUS_PRIORITY = {
    s: n for n, s in enumerate(("running", "waiting", "async_wait", "approval_wait"))
}
_STATUS_PRIORITY |= {"retrying": 9, "unknown": 10}

HANGABLE_KINDS = frozenset({"JobRun", "Condition", "Release"})
FAILABLE_KINDS = HANGABLE_KINDS | {"Build", "AddonBackup", "RunTemplate", "Action"}

ERRORS = {
    "Build": ((1, "Build failed: process exited with code 1"), (137, "Build ran out of memory")),
    "JobRun": ((1, "Job run failed with exit code 1"), (124, "Job exceeded its active deadline")),
    "Release": ((408, "Deployment did not become ready within 1800 seconds"),),
    "Condition": ((408, "Condition was not met before the timeout"),),
    "AddonBackup": ((500, "Backup failed: not enough disk space"),),
    "RunTemplate": ((422, "Template run failed: 3 of 41 checks did not pass"),),
    "Action": ((409, "Service cannot be restarted while it is scaling"),),
}
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


@dataclass(frozen=True, slots=True)
class RunKey:
    """Identifies a run within its flow; determines its id and its random values."""

    text: str
    slot: int | None = None
    """Its slot in the schedule, counted from the origin; None: started by hand, or preset."""
    preset: PresetRun | None = None


class ScriptEvent(NamedTuple):
    """The statuses of a node and of its run from `start` on."""

    start: float
    run_status: str
    node_status: str | None
    attempt: int


@dataclass(frozen=True, slots=True)
class StepScript:
    """The course of a step: a leaf with its events, or a group with its steps."""

    step: Step
    start: float
    end: float
    final_status: str
    events: tuple[ScriptEvent, ...] = ()
    error: tuple[int, str] | None = None
    steps: "tuple[StepScript, ...]" = ()


@dataclass(frozen=True, slots=True)
class RunScript:
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
        statuses = [
            event.run_status
            for leaf in self._open_leaves(elapsed)
            if (event := current_event(leaf, elapsed))
        ]
        return max(statuses, key=lambda status: _STATUS_PRIORITY[status], default="running")

    def changed_at(self, elapsed: float) -> float:
        """Return the time of the last change up to `elapsed`."""
        last = 0.0
        for leaf in _leaf_scripts(self.steps):
            times = [event.start for event in leaf.events] + [leaf.end]
            last = max([last, *(time for time in times if time <= elapsed)])
        return last

    def step_start(self, ref: str) -> float:
        """Return when a step starts; raise StopIteration if the run never reaches it."""
        return next(leaf.start for leaf in _leaf_scripts(self.steps) if leaf.step.ref == ref)

    def _open_leaves(self, elapsed: float) -> Iterator[StepScript]:
        return (leaf for leaf in _leaf_scripts(self.steps) if leaf.start <= elapsed < leaf.end)


def current_event(leaf: StepScript, elapsed: float) -> ScriptEvent | None:
    """Return the latest event of a leaf, or None before its first."""
    return next((event for event in reversed(leaf.events) if event.start <= elapsed), None)


def next_attempt_time(leaf: StepScript, elapsed: float) -> float:
    """Return the time of the next attempt of a leaf that is `retrying`, as of now."""
    if upcoming := [event.start for event in leaf.events if event.start > elapsed]:
        return upcoming[0]
    failed_at = leaf.events[-1].start
    return failed_at + BACKOFF_SECONDS * (math.floor((elapsed - failed_at) / BACKOFF_SECONDS) + 1)


def simulate(seed: int, flow: ReleaseFlow, key: RunKey, *, hang_seconds: float = 0) -> RunScript:
    """Return the script of a run; with `hang_seconds` it always hangs for that long."""
    # Only random() is used, since its numbers are the same in all versions of Python.
    rng = Random(f"{seed}/{flow.key}/{key.text}").random
    failure_mode = "hang" if hang_seconds else _draw_failure_mode(flow, rng())
    if key.preset or (key.slot is None and failure_mode in {"skip", "abort"}):
        failure_mode = "success"  # a run started by hand is neither skipped nor aborted
    pending_seconds = 1.5 + 4 * rng()
    if failure_mode == "skip":
        return RunScript(pending_seconds, 0, "skipped", None, ())
    simulator = _Simulator(flow, failure_mode, rng, hang_seconds or (0.75 + 0.75 * rng()) * HOUR)
    simulator.preset_steps = {step.ref: step for step in key.preset.steps} if key.preset else {}
    steps, end = simulator.simulate_steps(flow.steps, 0.0, parallel=False)
    if failure_mode == "abort":
        abort_after_seconds = (0.2 + 0.7 * rng()) * end
        return RunScript(
            pending_seconds,
            abort_after_seconds + 3 + 15 * rng(),
            "aborted",
            abort_after_seconds,
            steps,
        )
    return RunScript(pending_seconds, end, simulator.outcome, None, steps)


def _draw_failure_mode(flow: ReleaseFlow, random_value: float) -> str:
    if "always-succeeds" in flow.behaviours:
        return "success"
    for failure_mode, probability in _FAILURE_MODES:
        random_value -= probability
        if random_value < 0:
            return (
                "success"
                if failure_mode == "hang" and "hangs" not in flow.behaviours
                else failure_mode
            )
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
        kinds = HANGABLE_KINDS if failure_mode == "hang" else FAILABLE_KINDS
        candidates = [n for n, leaf in enumerate(flow.leaves) if leaf.kind in kinds]
        self.affected_leaf = candidates[int(rng() * len(candidates))]
        self.leaf_index = -1

    def simulate_steps(
        self, steps: Sequence[Step], start: float, *, parallel: bool
    ) -> tuple[tuple[StepScript, ...], float]:
        scripts: list[StepScript] = []
        end = start
        for step in steps:
            if self.outcome != "success" and not parallel:
                break
            script = (
                self._simulate_group(step, start)
                if step.steps
                else self._simulate_leaf(step, start)
            )
            scripts.append(script)
            end = max(end, script.end)
            if not parallel:
                start = end
        return tuple(scripts), end

    def _simulate_group(self, step: Step, start: float) -> StepScript:
        outcome_before = self.outcome
        scripts, end = self.simulate_steps(step.steps, start, parallel=step.parallel)
        final_status = "success" if self.outcome == outcome_before else self.outcome
        return StepScript(step, start, end, final_status, steps=scripts)

    def _simulate_leaf(self, step: Step, start: float) -> StepScript:
        if step.skip:
            return StepScript(step, start, start, "skipped")
        self.leaf_index += 1
        low, high = step.duration_range
        seconds = low + (high - low) * self.rng()
        if preset := self.preset_steps.get(step.ref):
            return self._simulate_preset_step(step, start, seconds, preset)
        failure_mode = self.failure_mode if self.leaf_index == self.affected_leaf else "success"
        if failure_mode == "failure":
            errors = ERRORS[step.kind]
            return self._simulate_attempts(
                step, start, seconds, "failure", errors[int(self.rng() * len(errors))], 3
            )
        if failure_mode == "invalid":
            seconds = RESPONSE_DELAY + 1
            return self._simulate_attempts(step, start, seconds, "invalid", INVALID_ERROR, 1)
        if failure_mode == "unknown":
            return self._simulate_attempts(step, start, seconds, "unknown", UNKNOWN_ERROR, 1)
        if failure_mode == "hang":
            final_status = "failure" if self.rng() < 0.7 else "success"
            error = TIMEOUT_ERROR if final_status == "failure" else None
            # Minus the time before, so that the run, not the step, lasts that long.
            return self._simulate_attempts(
                step, start, max(self.hang_seconds - start, 60), final_status, error, 1
            )
        attempts = 2 if failure_mode == "retry" else 1
        return self._simulate_attempts(step, start, seconds, "success", None, attempts)

    def _simulate_preset_step(
        self, step: Step, start: float, seconds: float, preset: PresetStep
    ) -> StepScript:
        attempts = preset.attempts
        if preset.duration_seconds < math.inf:
            return self._simulate_attempts(
                step, start, preset.duration_seconds, "success", None, attempts
            )
        script = self._simulate_attempts(step, start, seconds, "success", None, attempts)
        if attempts == 1:
            return replace(script, end=math.inf)
        postponed = ScriptEvent(script.end, "retrying", "retrying", attempts)
        error = ERRORS[step.kind][0]
        return replace(script, end=math.inf, events=(*script.events, postponed), error=error)

    def _simulate_attempts(
        self,
        step: Step,
        start: float,
        seconds: float,
        final_status: str,
        error: tuple[int, str] | None,
        attempts: int,
    ) -> StepScript:
        """Simulate a leaf with this number of attempts; all but the last fail."""
        if final_status != "success":
            self.outcome = "unknown" if final_status == "unknown" else "failure"
        run_status = ACTIVE_RUN_STATUS.get(step.kind, "running")
        node_status = ACTIVE_NODE_STATUS.get(step.kind, "waiting")
        events = [ScriptEvent(start, "running", None, 1)]
        attempt_start = start
        for attempt in range(1, attempts + 1):
            first_event = attempt_start + (RESPONSE_DELAY if attempt == 1 else 0)
            events.append(ScriptEvent(first_event, run_status, node_status, attempt))
            attempt_start += max(seconds * (1 if attempt == attempts else 0.4), RESPONSE_DELAY + 1)
            if attempt < attempts:
                events.append(ScriptEvent(attempt_start, "retrying", "retrying", attempt))
                attempt_start += 10 + 15 * self.rng()
        return StepScript(step, start, attempt_start, final_status, tuple(events), error)


def _leaf_scripts(scripts: Sequence[StepScript]) -> Iterator[StepScript]:
    for script in scripts:
        if script.steps:
            yield from _leaf_scripts(script.steps)
        else:
            yield script
