"""The runs of one release flow: which exist, which queue, which are aborted.

They come into being one after the other while time passes, from the beginning of the list's history
on, and the concurrency policy decides when each starts. A run's times are known from then on; an
abort changes those of the runs that wait.

Scheduled runs have slots, counted from an origin, and are a function of seed, flow and slot. Where
a flow allows one run at a time, those of a period all end within it. So it does not matter where
the history begins: a sandbox that starts later has the same runs.
"""

import math
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial
from hashlib import blake2b
from operator import attrgetter
from threading import RLock
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from .catalog import PresetRun, ReleaseFlow
from .simulation import HOUR, RunScript, list_leaf_scripts, simulate

PERIOD_SECONDS = 3 * HOUR

IDLE_SECONDS = 2 * HOUR
"""Seconds from the end of an idle flow's last run to the opening of the scenario."""
STUCK_SECONDS = PERIOD_SECONDS + HOUR / 2
"""Longer than a period: the next stuck run is created half an hour before this one ends."""
JAM_SECONDS = PERIOD_SECONDS - HOUR / 3
"""Shorter than a period: the queue behind the jam clears before the next period."""
JAM_INTERVAL_PERIODS = 8
"""Periods from one jam to the next: a day, with normal traffic except for three hours."""
BREAK_PERIODS = 2
"""Periods of each day in which every run of a flow that breaks fails; the last is the opening's."""
SKIP_DELAY_SECONDS = 0.4
"""Seconds from creation to the end of a skipped run."""

_by_creation = attrgetter("created_at")


@dataclass(slots=True, eq=False)
class Run:
    """A run with its times; those in the future may change by aborts."""

    flow: ReleaseFlow
    key: str
    """Determines the id and all random values."""
    created_at: float
    simulate: Callable[[], RunScript]
    slot: int | None = None
    """Its slot in the schedule; None: started by hand, or preset."""
    start_body: dict[str, Any] | None = None
    """The request body that started the run; None: scheduled."""
    id: str = field(init=False)
    started_at: float | None = None
    concluded_at: float = math.inf
    outcome: str = ""
    is_queued: bool = False
    aborted_at: float | None = None
    """When the abort was requested."""
    child_aborts: dict[str, float] = field(default_factory=dict)
    """When the abort of a job run or build was requested, by its id."""

    def __post_init__(self) -> None:
        self.id = str(uuid5(NAMESPACE_URL, f"sandbox:{self.key}"))

    @property
    def script(self) -> RunScript:
        return _call(self.simulate)

    def status(self, now: float) -> str:
        return self.state(now)[0]

    def state(self, now: float) -> tuple[str, float]:
        """Return the status, and when the run last changed."""
        # A concluded run needs no script, which is expensive to compute.
        if now >= self.concluded_at:
            return self.outcome, self.concluded_at
        if self.aborted_at is not None and now >= self.aborted_at:
            return "aborting", self.aborted_at
        if self.started_at is None or now < self.started_at:
            return "queued" if self.is_queued else "pending", self.created_at
        script, elapsed = self.script, now - self.started_at
        return script.status_at(elapsed), self.started_at + script.changed_at(elapsed)

    def skip(self, at: float) -> None:
        """Let the run end at a time without having started."""
        self.started_at = self.aborted_at = None
        self.concluded_at, self.outcome = at, "skipped"

    def start_after(self, free_at: float) -> None:
        """Let the run start as soon as it is ready, but not before `free_at`."""
        script = self.script
        ready_at = self.created_at + script.pending_seconds
        self.started_at = max(ready_at, free_at)
        self.is_queued = self.started_at > ready_at
        self.concluded_at = self.started_at + script.duration_seconds
        self.outcome = script.outcome
        if script.abort_after_seconds is not None:
            self.aborted_at = self.started_at + script.abort_after_seconds


@lru_cache(maxsize=256)  # more than are in flight
def _call(simulate: Callable[[], RunScript]) -> RunScript:
    return simulate()


class FlowRuns:
    def __init__(
        self,
        seed: int,
        flow: ReleaseFlow,
        opened_at: float,
        origin: float,
        history_seconds: float,
    ) -> None:
        self.flow = flow
        self._key_prefix = f"{seed}/{flow.key}"
        self._history_seconds = history_seconds
        self._slots_per_period = max(1, int(PERIOD_SECONDS / flow.interval_seconds))
        # Each flow's periods have their own offset, so that not all flows are stuck at the same
        # time.
        digest = blake2b(self._key_prefix.encode(), digest_size=4).digest()
        self._offset = origin + PERIOD_SECONDS * int.from_bytes(digest) / 2**32
        self._opening_period = self._period(opened_at)
        self._lock = RLock()  # tests and benchmarks look from other threads than the server's
        self._runs: list[Run] = []  # oldest first
        self._open: list[Run] = []  # those that had not concluded when the last one was created
        self._started_count = 0
        self._upcoming = [
            self._make_preset_run(n, preset, opened_at) for n, preset in enumerate(flow.preset_runs)
        ]
        self._schedule_end = opened_at - IDLE_SECONDS if "idle" in flow.behaviours else math.inf
        if self._upcoming and flow.concurrency_policy != "allow":
            self._schedule_end = self._upcoming[0].created_at
        self._schedule(self._period(opened_at - history_seconds) * self._slots_per_period)

    def newest_first(self, now: float) -> Iterator[Run]:
        """Yield the runs that the list contains."""
        self._create_until(now)
        oldest = now - self._history_seconds
        return (run for run in reversed(self._runs) if oldest <= run.created_at <= now)

    def in_flight(self, now: float) -> list[Run]:
        """Return the runs that have not concluded, newest first."""
        self._create_until(now)
        return [run for run in reversed(self._open) if run.created_at <= now < run.concluded_at]

    def start(self, now: float, body: dict[str, Any]) -> Run:
        """Start a run by hand."""
        with self._lock:
            self._create_until(now)
            # With the time in the key, a restarted sandbox does not reuse the id.
            key = f"{self._key_prefix}/started {now:.6f} {self._started_count}"
            self._started_count += 1
            script = partial(simulate, key, self.flow, is_scheduled=False)
            run = Run(self.flow, key, now, script, start_body=body)
            self._add(run)
        return run

    def abort(self, run: Run, now: float, *, ends_at: float, outcome: str) -> None:
        """Abort a run in flight; those behind it in the queue move up."""
        if run.started_at is None or now < run.started_at:
            run.started_at = None
        run.aborted_at, run.concluded_at, run.outcome = now, ends_at, outcome
        if self.flow.concurrency_policy == "allow":
            return
        free_at = now
        for other in self._open:
            if other.started_at is not None:
                if other.started_at > now:
                    other.start_after(free_at)
                free_at = max(free_at, other.concluded_at)

    def _create_until(self, now: float) -> None:
        """Create the runs up to now, and forget those that the list no longer contains."""
        with self._lock:
            while self._upcoming[0].created_at <= now:
                run = self._upcoming.pop(0)
                if run.slot is not None:
                    self._schedule(run.slot + 1)
                self._add(run)
            oldest = now - self._history_seconds
            del self._runs[: bisect_left(self._runs, oldest, key=_by_creation)]

    def _add(self, run: Run) -> None:
        """Add the next run, unless the concurrency policy or the schedule's end forbids it.

        Two behaviours are guesses. `latest`: a waiting run is superseded by a newer one. `forbid`:
        a run that comes too early does not exist if it is scheduled, and is skipped otherwise.
        """
        now, policy, script = run.created_at, self.flow.concurrency_policy, run.script
        self._open = [other for other in self._open if now < other.concluded_at]
        holders = [other for other in self._open if other.started_at is not None]
        superseded = None
        if policy == "latest":
            waiting = (other for other in holders if other.is_queued)
            superseded = next((other for other in waiting if now < (other.started_at or 0)), None)
        ends = (other.concluded_at for other in holders if other is not superseded)
        free_at = -math.inf if policy == "allow" else max(ends, default=-math.inf)
        is_refused = policy == "forbid" and now < free_at
        if is_refused and run.slot is not None and script.outcome != "skipped":
            return
        if is_refused or script.outcome == "skipped":
            run.skip(now + SKIP_DELAY_SECONDS)
        else:
            run.start_after(free_at)
        if run.slot is not None and run.concluded_at > self._latest_end(now):
            return
        if superseded and run.started_at is not None:
            superseded.skip(now)
        insort(self._runs, run, key=_by_creation)  # a clock may be set back
        self._open.append(run)

    # --- the schedule ------------------------------------------------------------------------

    def _period(self, timestamp: float) -> int:
        return math.floor((timestamp - self._offset) / PERIOD_SECONDS)

    def _latest_end(self, created_at: float) -> float:
        """Return when a scheduled run must have ended."""
        if self.flow.concurrency_policy == "allow":
            return self._schedule_end
        period_end = (self._period(created_at) + 1) * PERIOD_SECONDS + self._offset
        return min(period_end, self._schedule_end)

    def _schedule(self, slot: int) -> None:
        """Make the run of a slot an upcoming one."""
        period, place = divmod(slot, self._slots_per_period)
        hang_seconds = 0.0
        if place == 0 and "stuck" in self.flow.behaviours:
            hang_seconds = STUCK_SECONDS
        elif place == 0 and "daily-jam" in self.flow.behaviours:
            # In a flow that is always jammed, a wait of hours would be typical.
            is_jammed = (period - self._opening_period) % JAM_INTERVAL_PERIODS == 0
            hang_seconds = JAM_SECONDS if is_jammed else 0
        breaks = (
            "breaks" in self.flow.behaviours
            and (self._opening_period - period) % JAM_INTERVAL_PERIODS < BREAK_PERIODS
        )
        key = f"{self._key_prefix}/{slot}"
        script = partial(simulate, key, self.flow, hang_seconds=hang_seconds, breaks=breaks)
        run = Run(self.flow, key, 0, script, slot)
        # Random within its slot; a run that hangs is created at the slot's start.
        jitter = 0 if hang_seconds else 0.8 * int(run.id[:4], 16) / 0x10000
        width = PERIOD_SECONDS / self._slots_per_period
        run.created_at = period * PERIOD_SECONDS + self._offset + (place + jitter) * width
        insort(self._upcoming, run, key=_by_creation)

    def _make_preset_run(self, number: int, preset: PresetRun, opened_at: float) -> Run:
        key = f"{self._key_prefix}/staged {opened_at:.0f} {number}"
        script = partial(simulate, key, self.flow, preset=preset)
        run = Run(self.flow, key, 0, script, start_body={"name": preset.name})
        lead_seconds = 0.0
        if preset.steps:
            leaves, ref = list_leaf_scripts(run.script.steps), preset.steps[0].ref
            start = next(leaf.start for leaf in leaves if leaf.step.ref == ref)
            lead_seconds = run.script.pending_seconds + start
        run.created_at = opened_at - preset.elapsed_seconds - lead_seconds
        if preset.abort_elapsed_seconds is not None:
            run.aborted_at = opened_at - preset.abort_elapsed_seconds
        return run
