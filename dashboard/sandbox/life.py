"""The life of one run: which steps it takes, how long each takes, and how it ends.

A life is a function of seed, flow and run number. Its times are seconds after the run started;
who waits for whom, and who is aborted when, is decided in `history.py`.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import NamedTuple

from .catalog import Flow, Staged, Step, Trouble

HOUR = 3600.0
EPOCH = 3 * HOUR
"""Scheduled runs are planned in stretches of this length, see `history.py`."""

JUST_STARTED = 1.5
"""Seconds for which a node that runs has no `response` yet."""
BACKOFF = 60.0
"""Seconds by which an attempt is put off, and again."""

# What a node reports while it is at work, and what that makes of its run. The API has no
# "running" for nodes, and does not say when a run is `waiting` or in `async_wait`: a guess.
NODE_AT_WORK = {"Approval": "approval_wait", "RunTemplate": "async_wait", "Action": "async_wait"}
RUN_AT_WORK = {
    "Approval": "approval_wait",
    "RunTemplate": "async_wait",
    "Action": "async_wait",
    "Condition": "waiting",
    "Release": "waiting",
}
_RANK = {s: n for n, s in enumerate(("running", "waiting", "async_wait", "approval_wait"))}
_RANK |= {"retrying": 9, "unknown": 10}

HANGABLE = frozenset({"JobRun", "Condition", "Release"})
FAILABLE = HANGABLE | {"Build", "AddonBackup", "RunTemplate", "Action"}

ERRORS = {
    "Build": ((1, "Build failed: process exited with code 1"), (137, "Build ran out of memory")),
    "JobRun": ((1, "Job run failed with exit code 1"), (124, "Job exceeded its active deadline")),
    "Release": ((408, "Deployment did not become ready within 1800 seconds"),),
    "Condition": ((408, "Condition was not met before the timeout"),),
    "AddonBackup": ((500, "Backup failed: not enough disk space"),),
    "RunTemplate": ((422, "Template run failed: 3 of 41 checks did not pass"),),
    "Action": ((409, "Service cannot be restarted while it is scaling"),),
}
INVALID = (400, "Reference ${refs.image.tag} could not be resolved")
HUNG = (408, "No result within the time allowed")
LOST = (500, "State of this node could not be determined")

_FATES = (
    ("failure", 0.085),
    ("retry", 0.07),
    ("abort", 0.035),
    ("skip", 0.012),
    ("invalid", 0.008),
    ("unknown", 0.005),
    ("hang", 0.006),
)


class Beat(NamedTuple):
    """From `at` on, the node reports this, and its run that."""

    at: float
    run_status: str
    node_status: str | None
    attempt: int


@dataclass(frozen=True, slots=True)
class Played:
    """A step as it went: a leaf with its beats, or a group with its steps."""

    step: Step
    start: float
    end: float
    verdict: str
    beats: tuple[Beat, ...] = ()
    error: tuple[int, str] | None = None
    steps: "tuple[Played, ...]" = ()


@dataclass(frozen=True, slots=True)
class Life:
    pending: float
    """Seconds between creation and start when nothing is in the way."""
    seconds: float
    """From start to end, unless somebody aborts it through the API."""
    outcome: str
    aborted_after: float | None
    """When a colleague aborts it, if one does."""
    steps: tuple[Played, ...]

    def status(self, after: float) -> str:
        """Tell the status of the run at a time between its start and its end."""
        now = [beat.run_status for leaf in self._open(after) if (beat := beat_of(leaf, after))]
        return max(now, key=lambda status: _RANK[status], default="running")

    def changed(self, after: float) -> float:
        """Tell when something last happened to the run, up to the given time."""
        last = 0.0
        for leaf in _flat(self.steps):
            times = [beat.at for beat in leaf.beats] + [leaf.end]
            last = max([last, *(at for at in times if at <= after)])
        return last

    def began(self, ref: str) -> float:
        """Tell when a step began; it must have been reached."""
        return next(leaf.start for leaf in _flat(self.steps) if leaf.step.ref == ref)

    def _open(self, after: float) -> Iterator[Played]:
        return (leaf for leaf in _flat(self.steps) if leaf.start <= after < leaf.end)


def beat_of(leaf: Played, after: float) -> Beat | None:
    """Return the beat a leaf is in, or None before its first."""
    return next((beat for beat in reversed(leaf.beats) if beat.at <= after), None)


def next_attempt(leaf: Played, after: float) -> float:
    """Tell when a leaf that is `retrying` is to be tried again, as far as is known by now."""
    if coming := [beat.at for beat in leaf.beats if beat.at > after]:
        return coming[0]
    failed = leaf.beats[-1].at
    return failed + BACKOFF * (math.floor((after - failed) / BACKOFF) + 1)


def live(
    seed: int, flow: Flow, number: int | str, *, hang: float = 0, staged: Staged | None = None
) -> Life:
    """Play the run with this number.

    With `hang` it hangs for so many seconds, come what may; a staged one goes as it is written.
    """
    # Only random() is used: it alone is promised to give the same numbers in every Python.
    dice = Random(f"{seed}/{flow.key}/{number}").random
    fate = "hang" if hang else _fate(flow, dice())
    if staged or (isinstance(number, str) and fate in {"skip", "abort"}):
        fate = "success"  # started by hand: whoever did it wants to see it run
    pending = 1.5 + 4 * dice()
    if fate == "skip":
        return Life(pending, 0, "skipped", None, ())
    player = _Player(flow, fate, dice, hang or (0.75 + 0.75 * dice()) * HOUR)
    player.troubles = {trouble.ref: trouble for trouble in staged.troubles} if staged else {}
    steps, end = player.play(flow.steps, 0.0, parallel=False)
    if fate == "abort":
        after = (0.2 + 0.7 * dice()) * end
        return Life(pending, after + 3 + 15 * dice(), "aborted", after, steps)
    return Life(pending, end, player.outcome, None, steps)


def _fate(flow: Flow, rolled: float) -> str:
    if "calm" in flow.quirks:
        return "success"
    for fate, chance in _FATES:
        rolled -= chance
        if rolled < 0:
            return "success" if fate == "hang" and "hangs" not in flow.quirks else fate
    return "success"


class _Player:
    """Plays the steps of one run; what fate has in store befalls one leaf, the victim."""

    def __init__(self, flow: Flow, fate: str, dice: Callable[[], float], hang: float) -> None:
        self.fate = fate
        self.dice = dice
        self.hang = hang
        self.outcome = "success"
        self.troubles: dict[str, Trouble] = {}
        kinds = HANGABLE if fate == "hang" else FAILABLE
        choice = [n for n, leaf in enumerate(flow.leaves) if leaf.kind in kinds]
        self.victim = choice[int(dice() * len(choice))]
        self.leaf = -1

    def play(
        self, steps: Sequence[Step], at: float, *, parallel: bool
    ) -> tuple[tuple[Played, ...], float]:
        played: list[Played] = []
        end = at
        for step in steps:
            if self.outcome != "success" and not parallel:
                break
            result = self._group(step, at) if step.steps else self._leaf(step, at)
            played.append(result)
            end = max(end, result.end)
            if not parallel:
                at = end
        return tuple(played), end

    def _group(self, step: Step, at: float) -> Played:
        before = self.outcome
        steps, end = self.play(step.steps, at, parallel=step.parallel)
        verdict = "success" if self.outcome == before else self.outcome
        return Played(step, at, end, verdict, steps=steps)

    def _leaf(self, step: Step, at: float) -> Played:
        if step.skip:
            return Played(step, at, at, "skipped")
        self.leaf += 1
        low, high = step.seconds
        seconds = low + (high - low) * self.dice()
        if trouble := self.troubles.get(step.ref):
            return self._troubled(step, at, seconds, trouble)
        fate = self.fate if self.leaf == self.victim else "success"
        if fate == "failure":
            errors = ERRORS[step.kind]
            return self._end(
                step, at, seconds, "failure", errors[int(self.dice() * len(errors))], 3
            )
        if fate == "retry":
            return self._end(step, at, seconds, "success", None, 2)
        if fate == "invalid":
            return self._end(step, at, JUST_STARTED + 1, "invalid", INVALID, 1)
        if fate == "unknown":
            return self._end(step, at, seconds, "unknown", LOST, 1)
        if fate == "hang":
            ends = "failure" if self.dice() < 0.7 else "success"
            error = HUNG if ends == "failure" else None
            # `at` counts, so that the run (rather than the step) hangs for the time wanted.
            return self._end(step, at, max(self.hang - at, 60), ends, error, 1)
        return self._end(step, at, seconds, "success", None, 1)

    def _troubled(self, step: Step, at: float, seconds: float, trouble: Trouble) -> Played:
        attempts = trouble.attempts
        if trouble.seconds < math.inf:
            return self._end(step, at, trouble.seconds, "success", None, attempts)
        played = self._end(step, at, seconds, "success", None, attempts)
        if attempts == 1:
            return replace(played, end=math.inf)
        put_off = Beat(played.end, "retrying", "retrying", attempts)
        error = ERRORS[step.kind][0]
        return replace(played, end=math.inf, beats=(*played.beats, put_off), error=error)

    def _end(
        self,
        step: Step,
        at: float,
        seconds: float,
        verdict: str,
        error: tuple[int, str] | None,
        attempts: int,
    ) -> Played:
        """Play a leaf of so many attempts: all but the last fail, and are tried again."""
        if verdict != "success":
            self.outcome = "unknown" if verdict == "unknown" else "failure"
        run_status = RUN_AT_WORK.get(step.kind, "running")
        node_status = NODE_AT_WORK.get(step.kind, "waiting")
        beats = [Beat(at, "running", None, 1)]
        begin = at
        for attempt in range(1, attempts + 1):
            first = begin + (JUST_STARTED if attempt == 1 else 0)
            beats.append(Beat(first, run_status, node_status, attempt))
            begin += max(seconds * (1 if attempt == attempts else 0.4), JUST_STARTED + 1)
            if attempt < attempts:
                beats.append(Beat(begin, "retrying", "retrying", attempt))
                begin += 10 + 15 * self.dice()
        return Played(step, at, begin, verdict, tuple(beats), error)


def _flat(steps: Sequence[Played]) -> Iterator[Played]:
    for played in steps:
        if played.steps:
            yield from _flat(played.steps)
        else:
            yield played
