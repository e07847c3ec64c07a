"""The runs of one release flow over time: which exist, which queue, which are aborted.

Time is divided into epochs of three hours. The runs scheduled in an epoch are a function of seed,
flow and epoch; where the concurrency policy would make the next epoch depend on them, they all end
before it. So any period can be computed alone, on first use, and a restart produces the same runs.
Epochs count from an origin; with another origin the same runs occur at the same distance from it.
Aborts and runs started by hand are applied afterwards, and change only later runs.

The preset runs of a scenario are also applied afterwards, around the time when it opened. If a flow
allows one run at a time, no run is scheduled after its first preset run. A flow with a daily jam
has the first jam when the scenario opens.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from .catalog import ReleaseFlow
from .simulation import EPOCH_SECONDS, HOUR, RunKey, RunScript, simulate

HISTORY_SECONDS = 72 * HOUR
"""Seconds that the list of runs reaches back by default."""
SHORT_HISTORY_SECONDS = 12 * HOUR
IDLE_SECONDS = 2 * HOUR
"""Seconds from the end of an idle flow's last run to the opening of the scenario."""

NEGATIVE_INFINITY = -math.inf

STUCK_SECONDS = EPOCH_SECONDS + HOUR / 2
"""Longer than an epoch: the next stuck run is created half an hour before this one ends."""
JAM_SECONDS = EPOCH_SECONDS - HOUR / 3
"""Shorter than an epoch: the queue behind the jam clears before the next epoch."""
JAM_INTERVAL_EPOCHS = 8
"""Epochs from one jam to the next: a day, with normal traffic except for three hours."""
LONGEST_RUN_EPOCHS = 1
"""Epochs after its own into which a scheduled run may last: a stuck one begins with its epoch."""
SKIP_DELAY_SECONDS = 0.4
"""Seconds from creation to the end of a skipped run."""


@dataclass(slots=True, eq=False)
class Run:
    """A run with its times; those in the future may change by aborts and started runs."""

    flow: ReleaseFlow
    key: RunKey
    id: str
    created_at: float
    started_at: float | None
    concluded_at: float
    outcome: str
    is_queued: bool = False
    aborted_at: float | None = None
    """When the abort was requested."""
    start_body: dict[str, Any] | None = None
    """The request body that started the run; None: scheduled."""

    def status(self, now: float, script: RunScript) -> str:
        """Return the status of a run in flight."""
        if self.aborted_at is not None and now >= self.aborted_at:
            return "aborting"
        if self.started_at is None or now < self.started_at:
            return "queued" if self.is_queued else "pending"
        return script.status_at(now - self.started_at)

    def updated_at(self, now: float, script: RunScript) -> float:
        """Return when a run in flight last changed."""
        if self.aborted_at is not None and now >= self.aborted_at:
            return self.aborted_at
        if self.started_at is None or now < self.started_at:
            return self.created_at
        return self.started_at + script.changed_at(now - self.started_at)


@dataclass(frozen=True, slots=True)
class Abort:
    requested_at: float
    ends_at: float
    outcome: str


@dataclass(frozen=True, slots=True)
class _Draft:
    """A run before the concurrency policy is applied."""

    key: RunKey
    id: str
    created_at: float
    script: RunScript
    start_body: dict[str, Any] | None = None


class History:
    def __init__(
        self,
        seed: int,
        flow: ReleaseFlow,
        opened_at: float = 0.0,
        origin: float = 0.0,
        history_seconds: float = HISTORY_SECONDS,
    ) -> None:
        self.seed = seed
        self.flow = flow
        self.aborts: dict[str, Abort] = {}
        self._extra_drafts: dict[int, list[_Draft]] = {}
        self._resolved_epochs: dict[int, tuple[list[Run], float]] = {}
        self._first_changed_epoch: float = math.inf
        self._oldest_kept_epoch: float = NEGATIVE_INFINITY
        self._history_seconds = (
            min(history_seconds, SHORT_HISTORY_SECONDS)
            if "short-history" in flow.behaviours
            else history_seconds
        )
        self._schedule_end = opened_at - IDLE_SECONDS if "idle" in flow.behaviours else math.inf
        self._slots_per_epoch = max(1, int(EPOCH_SECONDS / flow.interval_seconds))
        # Each flow's epochs have their own offset, so that not all flows are stuck at the same
        # time.
        digest = blake2b(f"{seed}/{flow.key}".encode(), digest_size=4).digest()
        self._epoch_offset = origin + EPOCH_SECONDS * int.from_bytes(digest) / 2**32
        self._opening_epoch = self._epoch(opened_at)
        for n, preset in enumerate(flow.preset_runs):
            self._add_preset_run(RunKey(f"staged {opened_at:.0f} {n}", preset=preset), opened_at)

    def newest_first(self, now: float) -> Iterator[Run]:
        """Yield the existing runs; an epoch is computed when its first run is needed."""
        oldest = self._epoch(now - self._history_seconds)
        self._prune(oldest)
        yield from self._newest_first(now, oldest)

    def _newest_first(self, now: float, oldest_epoch: int) -> Iterator[Run]:
        for epoch in range(self._epoch(now), oldest_epoch - 1, -1):
            for run in reversed(self._epoch_runs(epoch)):
                if now - self._history_seconds <= run.created_at <= now:
                    yield run

    def find_run(self, run_id: str, now: float) -> Run | None:
        return next((run for run in self.newest_first(now) if run.id == run_id), None)

    def in_flight(self, now: float) -> list[Run]:
        """Return the runs that have not concluded, newest first."""
        return [run for run in self.in_flight_since(now, now) if now < run.concluded_at]

    def in_flight_since(self, since: float, now: float) -> list[Run]:
        """Return the existing runs that concluded at `since`, later or not yet, newest first.

        Only epochs that can have such runs are computed: the last ones, and all since the first
        change by an abort or a started run.
        """
        oldest = self._epoch(now - self._history_seconds)
        self._prune(oldest)
        unchanged = self._epoch(since) - LONGEST_RUN_EPOCHS
        first = math.floor(max(oldest, min(unchanged, self._first_changed_epoch)))
        return [run for run in self._newest_first(now, first) if since <= run.concluded_at]

    def abort_run(self, run: Run, abort: Abort) -> None:
        self.aborts[run.id] = abort
        # A preset run may be stored in an epoch before its own.
        self._invalidate_from(
            self._first_changed_epoch if run.key.preset else self._epoch(run.created_at)
        )

    def start_run(self, now: float, body: dict[str, Any]) -> str:
        """Start a run by hand and return its id."""
        epoch = self._epoch(now)
        drafts = self._extra_drafts.setdefault(epoch, [])
        # With the time in the key, a restarted sandbox does not reuse the id.
        drafts.append(self._make_draft(RunKey(f"started {now:.6f} {len(drafts)}"), now, body))
        self._invalidate_from(epoch)
        return drafts[-1].id

    def get_script(self, run: Run) -> RunScript:
        return self._simulate(run.key)

    def _add_preset_run(self, key: RunKey, opened_at: float) -> None:
        preset = key.preset
        assert preset is not None
        script = self._simulate(key)
        lead_seconds = (
            script.pending_seconds + script.step_start(preset.steps[0].ref) if preset.steps else 0
        )
        created_at = opened_at - preset.elapsed_seconds - lead_seconds
        draft = self._make_draft(key, created_at, {"name": preset.name})
        epoch = self._epoch(created_at)
        if self.flow.concurrency_policy != "allow":
            # All in one epoch: an epoch with changes does not depend on the runs added to the next
            # one.
            epoch = min(self._extra_drafts, default=epoch)
            self._schedule_end = min(self._schedule_end, created_at)
        self._extra_drafts.setdefault(epoch, []).append(draft)
        self._first_changed_epoch = min(self._first_changed_epoch, epoch)
        if preset.abort_elapsed_seconds is not None:
            requested_at = opened_at - preset.abort_elapsed_seconds
            self.aborts[draft.id] = Abort(requested_at, math.inf, "aborted")

    # --- epochs ------------------------------------------------------------------------------

    def _epoch(self, timestamp: float) -> int:
        return math.floor((timestamp - self._epoch_offset) / EPOCH_SECONDS)

    def _epoch_start(self, epoch: int) -> float:
        return epoch * EPOCH_SECONDS + self._epoch_offset

    def _run_id(self, key: RunKey) -> str:
        return str(uuid5(NAMESPACE_URL, f"sandbox:{self.seed}/{self.flow.key}/{key.text}"))

    def _hang_seconds(self, key: RunKey) -> float:
        """Return how long a run must hang, in seconds; the first of an epoch does in some flows."""
        if key.slot is None or key.slot % self._slots_per_epoch:
            return 0
        if "stuck" in self.flow.behaviours:
            return STUCK_SECONDS
        # In a flow that is always jammed, a wait of hours would be typical.
        epochs_since_opening = key.slot // self._slots_per_epoch - self._opening_epoch
        is_jammed = epochs_since_opening % JAM_INTERVAL_EPOCHS == 0
        return JAM_SECONDS if "daily-jam" in self.flow.behaviours and is_jammed else 0

    def _simulate(self, key: RunKey) -> RunScript:
        return simulate(self.seed, self.flow, key, hang_seconds=self._hang_seconds(key))

    def _make_draft(
        self, key: RunKey, created_at: float, start_body: dict[str, Any] | None = None
    ) -> _Draft:
        return _Draft(key, self._run_id(key), created_at, self._simulate(key), start_body)

    def _scheduled_drafts(self, epoch: int) -> list[_Draft]:
        """Return drafts of the scheduled runs of an epoch, oldest first."""
        drafts = []
        width = EPOCH_SECONDS / self._slots_per_epoch
        for n in range(self._slots_per_epoch):
            slot = epoch * self._slots_per_epoch + n
            key = RunKey(str(slot), slot)
            # Random within its slot; a run that hangs is created at the slot's start.
            jitter = 0.8 * int(self._run_id(key)[:4], 16) / 0x10000
            offset = n if self._hang_seconds(key) else n + jitter
            drafts.append(self._make_draft(key, self._epoch_start(epoch) + offset * width))
        return drafts

    def _epoch_runs(self, epoch: int) -> list[Run]:
        return self._resolve_epoch(epoch)[0]

    def _resolve_epoch(self, epoch: int) -> tuple[list[Run], float]:
        if epoch in self._resolved_epochs:
            return self._resolved_epochs[epoch]
        drafts = self._scheduled_drafts(epoch)
        # The schedule does not depend on aborts and started runs: these shift existing runs, but no
        # listed run appears or vanishes.
        latest_end = (
            math.inf if self.flow.concurrency_policy == "allow" else self._epoch_start(epoch + 1)
        )
        latest_end = min(latest_end, self._schedule_end)
        resolved = apply_concurrency_policy(self.flow, drafts, {}, latest_end=latest_end)
        if self._is_changed(epoch):
            scheduled_ids = {run.id for run in resolved[0]}
            drafts = [draft for draft in drafts if draft.id in scheduled_ids]
            drafts = sorted(drafts + self._extra_drafts.get(epoch, []), key=lambda d: d.created_at)
            busy_until = (
                self._resolve_epoch(epoch - 1)[1]
                if self._is_changed(epoch - 1)
                else NEGATIVE_INFINITY
            )
            resolved = apply_concurrency_policy(
                self.flow, drafts, self.aborts, initial_busy_until=busy_until
            )
        self._resolved_epochs[epoch] = resolved
        return resolved

    def _is_changed(self, epoch: int) -> bool:
        """Return whether an abort or a started run has changed this epoch or an earlier one."""
        return epoch >= self._first_changed_epoch

    def _invalidate_from(self, epoch: float) -> None:
        self._first_changed_epoch = min(self._first_changed_epoch, epoch)
        self._resolved_epochs = {
            e: resolved for e, resolved in self._resolved_epochs.items() if e < epoch
        }

    def _prune(self, oldest: int) -> None:
        """Remove data that is older than the list of runs, to limit memory use."""
        if oldest <= self._oldest_kept_epoch:
            return
        self._oldest_kept_epoch = oldest
        kept_epochs = {e: resolved for e, resolved in self._resolved_epochs.items() if e >= oldest}
        removed_ids = {
            run.id
            for e in self._resolved_epochs.keys() - kept_epochs
            for run in self._resolved_epochs[e][0]
        }
        self._resolved_epochs = kept_epochs
        self._extra_drafts = {e: drafts for e, drafts in self._extra_drafts.items() if e >= oldest}
        self.aborts = {i: abort for i, abort in self.aborts.items() if i not in removed_ids}
        if self._first_changed_epoch < oldest:
            self._first_changed_epoch = oldest if self.aborts or self._extra_drafts else math.inf


def apply_concurrency_policy(
    flow: ReleaseFlow,
    drafts: Sequence[_Draft],
    aborts: dict[str, Abort],
    *,
    initial_busy_until: float = NEGATIVE_INFINITY,
    latest_end: float = math.inf,
) -> tuple[list[Run], float]:
    """Return the runs after applying policy and aborts, and the time until which the flow is busy.

    Drafts that would end after `latest_end` are left out. Two behaviours are guesses. `latest`: a
    waiting run is superseded by a newer one. `forbid`: a run that comes too early does not exist if
    it is scheduled, and is skipped otherwise.
    """
    queue = _RunQueue(flow, aborts, initial_busy_until, latest_end)
    for draft in drafts:
        queue.add(draft)
    return queue.runs, queue.busy_until


class _RunQueue:
    def __init__(
        self, flow: ReleaseFlow, aborts: dict[str, Abort], busy_until: float, latest_end: float
    ) -> None:
        self.flow = flow
        self.policy = flow.concurrency_policy
        self.aborts = aborts
        self.latest_end = latest_end
        self.runs: list[Run] = []
        self.busy_until = busy_until
        self._busy_before = busy_until  # without the waiting run
        self._waiting_run: Run | None = None

    def add(self, draft: _Draft) -> None:
        """Add the next run in order of creation."""
        run = Run(self.flow, draft.key, draft.id, draft.created_at, None, 0, draft.script.outcome)
        run.start_body = draft.start_body
        is_refused = self.policy == "forbid" and draft.created_at < self.busy_until
        if run.outcome == "skipped" or (is_refused and draft.start_body is not None):
            run.concluded_at, run.outcome = draft.created_at + SKIP_DELAY_SECONDS, "skipped"
            if run.concluded_at <= self.latest_end:
                self.runs.append(run)
        elif not is_refused:
            self._schedule(run, draft.script)

    def _schedule(self, run: Run, script: RunScript) -> None:
        superseded = self._superseded_by(run)
        free_at = self._busy_before if superseded else self.busy_until
        ready_at = run.created_at + script.pending_seconds
        start = ready_at if self.policy == "allow" else max(ready_at, free_at)
        run.is_queued = start > ready_at
        run.started_at, run.concluded_at = start, start + script.duration_seconds
        if script.abort_after_seconds is not None:
            run.aborted_at = start + script.abort_after_seconds
        if abort := self.aborts.get(run.id):
            run.aborted_at, run.concluded_at = abort.requested_at, abort.ends_at
            run.outcome = abort.outcome
            if abort.requested_at < start:
                run.started_at = None
        if run.concluded_at > self.latest_end:
            return
        if superseded:
            superseded.started_at, superseded.aborted_at = None, None
            superseded.concluded_at, superseded.outcome = run.created_at, "skipped"
        self.runs.append(run)
        if run.started_at is not None:
            self._busy_before, self.busy_until = free_at, max(free_at, run.concluded_at)
            self._waiting_run = run if run.is_queued else None
        elif superseded:
            self.busy_until, self._waiting_run = free_at, None

    def _superseded_by(self, run: Run) -> Run | None:
        waiting = self._waiting_run
        if self.policy == "latest" and waiting and (waiting.started_at or 0) > run.created_at:
            return waiting
        return None
