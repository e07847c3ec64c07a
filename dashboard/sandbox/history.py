"""The runs of one release flow over time: which exist, who waits for whom, who was aborted.

Time is cut into epochs of three hours. The runs scheduled in an epoch are a function of seed,
flow and epoch, and never reach from one epoch into the next where the concurrency policy would
make the next one depend on it. So any stretch of time can be computed alone, on first use, and
a restart finds the same runs. Epochs are counted from an origin: of two whose origins differ, the
same happens as long after each. Aborts and runs started by hand are laid over that plan. Each
changes only what comes after it.

Runs that a scenario has staged are laid over it in the same way, around the time at which the
scenario opened. Where one run goes at a time, nothing is scheduled from the first of them on. The
time of day at which it opened is also when a flow is jammed that is jammed once a day.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from .catalog import PresetRun, ReleaseFlow
from .simulation import EPOCH_SECONDS, HOUR, RunScript, simulate

HISTORY_SECONDS = 72 * HOUR
"""How far back the list of runs reaches, unless asked otherwise."""
SHORT_HISTORY_SECONDS = 12 * HOUR
IDLE_SECONDS = 2 * HOUR
"""How long before the scenario opened the last run of an idle flow had ended."""

NEGATIVE_INFINITY = -math.inf

STUCK_SECONDS = EPOCH_SECONDS + HOUR / 2
"""Longer than an epoch: the next stuck run is there half an hour before this one ends."""
JAM_SECONDS = EPOCH_SECONDS - HOUR / 3
"""Shorter than an epoch: what has queued up behind the jam passes before the next one."""
JAM_INTERVAL_EPOCHS = 8
"""Epochs from one jam to the next: a day, of which all but three hours show what is usual."""
SKIP_DELAY_SECONDS = 0.4
"""Seconds after which a run that is not carried out has ended."""


@dataclass(slots=True, eq=False)
class Run:
    """A run with its times; those in the future are what happens if nobody interferes."""

    flow: ReleaseFlow
    number: int | str
    id: str
    created_at: float
    started_at: float | None
    concluded_at: float
    outcome: str
    is_queued: bool = False
    aborted_at: float | None = None
    """When the abort was asked for."""
    start_body: dict[str, Any] | None = None
    """What a run that was started by hand, or staged, was given."""

    def status(self, now: float, script: RunScript) -> str:
        if now >= self.concluded_at:
            return self.outcome
        if self.aborted_at is not None and now >= self.aborted_at:
            return "aborting"
        if self.started_at is None or now < self.started_at:
            return "queued" if self.is_queued else "pending"
        return script.status_at(now - self.started_at)

    def updated_at(self, now: float, script: RunScript) -> float:
        """Tell when the run last changed, up to now."""
        if now >= self.concluded_at:
            return self.concluded_at
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
    """A run before the policy has had its say."""

    number: int | str
    id: str
    created_at: float
    pending_seconds: float
    duration_seconds: float
    outcome: str
    abort_after_seconds: float | None
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
        # Each flow has its own beginning of an epoch, or all would be stuck at the same time.
        digest = blake2b(f"{seed}/{flow.key}".encode(), digest_size=4).digest()
        self._epoch_offset = origin + EPOCH_SECONDS * int.from_bytes(digest) / 2**32
        self._opening_epoch = self._epoch(opened_at)
        self._preset_runs = {
            f"staged {opened_at:.0f} {n}": run for n, run in enumerate(flow.preset_runs)
        }
        for number, staged in self._preset_runs.items():
            self._add_preset_run(number, staged, opened_at)

    def newest_first(self, now: float) -> Iterator[Run]:
        """Yield the runs that exist now; an epoch is worked out when its first run is asked for."""
        newest = self._epoch(now)
        oldest = self._epoch(now - self._history_seconds)
        self._prune(oldest)
        for epoch in range(newest, oldest - 1, -1):
            for run in reversed(self._epoch_runs(epoch)):
                if now - self._history_seconds <= run.created_at <= now:
                    yield run

    def find_run(self, run_id: str, now: float) -> Run | None:
        return next((run for run in self.newest_first(now) if run.id == run_id), None)

    def in_flight(self, now: float) -> list[Run]:
        """Return the runs that have not concluded, newest first."""
        return [run for run in self.newest_first(now) if now < run.concluded_at]

    def abort_run(self, run: Run, abort: Abort) -> None:
        self.aborts[run.id] = abort
        # What was staged may be kept in an epoch before its own.
        is_preset = run.number in self._preset_runs
        self._invalidate_from(
            self._first_changed_epoch if is_preset else self._epoch(run.created_at)
        )

    def start_run(self, now: float, body: dict[str, Any]) -> str:
        """Start a run by hand and return its id."""
        epoch = self._epoch(now)
        drafts = self._extra_drafts.setdefault(epoch, [])
        # The time is part of the number, or a restarted sandbox would give an id out again.
        number = f"started {now:.6f} {len(drafts)}"
        drafts.append(self._make_draft(number, now, self._simulate(number), body))
        self._invalidate_from(epoch)
        return drafts[-1].id

    def get_script(self, run: Run) -> RunScript:
        return self._simulate(run.number)

    def _add_preset_run(self, number: str, preset: PresetRun, opened_at: float) -> None:
        """Put a run in its place."""
        script = self._simulate(number)
        lead_seconds = (
            script.pending_seconds + script.step_start(preset.steps[0].ref) if preset.steps else 0
        )
        created_at = opened_at - preset.elapsed_seconds - lead_seconds
        draft = self._make_draft(number, created_at, script, {"name": preset.name})
        epoch = self._epoch(created_at)
        if self.flow.concurrency_policy != "allow":
            # All in one: who waits in an epoch knows nothing of those that come in the next.
            epoch = min(self._extra_drafts, default=epoch)
        self._extra_drafts.setdefault(epoch, []).append(draft)
        self._first_changed_epoch = min(self._first_changed_epoch, epoch)
        if preset.abort_elapsed_seconds is not None:
            self.aborts[draft.id] = Abort(
                opened_at - preset.abort_elapsed_seconds, math.inf, "aborted"
            )
        if self.flow.concurrency_policy != "allow":
            self._schedule_end = min(self._schedule_end, created_at)

    # --- epochs ------------------------------------------------------------------------------

    def _epoch(self, timestamp: float) -> int:
        return math.floor((timestamp - self._epoch_offset) / EPOCH_SECONDS)

    def _epoch_start(self, epoch: int) -> float:
        return epoch * EPOCH_SECONDS + self._epoch_offset

    def _run_id(self, number: int | str) -> str:
        return str(uuid5(NAMESPACE_URL, f"sandbox:{self.seed}/{self.flow.key}/{number}"))

    def _hang_seconds(self, number: int | str) -> float:
        """Tell how long the run must hang: the first of an epoch, in a flow that is stuck."""
        if isinstance(number, str) or number % self._slots_per_epoch:
            return 0
        if "stuck" in self.flow.behaviours:
            return STUCK_SECONDS
        # Were the flow jammed always, it would be usual to wait for hours.
        is_jammed = (
            number // self._slots_per_epoch - self._opening_epoch
        ) % JAM_INTERVAL_EPOCHS == 0
        return JAM_SECONDS if "daily-jam" in self.flow.behaviours and is_jammed else 0

    def _simulate(self, number: int | str) -> RunScript:
        preset = self._preset_runs.get(number) if isinstance(number, str) else None
        return simulate(
            self.seed, self.flow, number, hang_seconds=self._hang_seconds(number), preset=preset
        )

    def _make_draft(
        self,
        number: int | str,
        created_at: float,
        script: RunScript,
        start_body: dict[str, Any] | None = None,
    ) -> _Draft:
        return _Draft(
            *(
                number,
                self._run_id(number),
                created_at,
                script.pending_seconds,
                script.duration_seconds,
                script.outcome,
            ),
            abort_after_seconds=script.abort_after_seconds,
            start_body=start_body,
        )

    def _scheduled_drafts(self, epoch: int) -> list[_Draft]:
        """Draft the scheduled runs of an epoch, oldest first."""
        drafts = []
        width = EPOCH_SECONDS / self._slots_per_epoch
        for slot in range(self._slots_per_epoch):
            number = epoch * self._slots_per_epoch + slot
            # Somewhere in its slot, but the run that hangs is there from the beginning.
            jitter = (
                0
                if self._hang_seconds(number)
                else 0.8 * int(self._run_id(number)[:4], 16) / 0x10000
            )
            created_at = self._epoch_start(epoch) + (slot + jitter) * width
            drafts.append(self._make_draft(number, created_at, self._simulate(number)))
        return drafts

    def _epoch_runs(self, epoch: int) -> list[Run]:
        return self._resolve_epoch(epoch)[0]

    def _resolve_epoch(self, epoch: int) -> tuple[list[Run], float]:
        if epoch in self._resolved_epochs:
            return self._resolved_epochs[epoch]
        drafts = self._scheduled_drafts(epoch)
        # What is planned does not depend on aborts and starts, so these move runs that exist
        # already but never make one come or go that was there to be seen.
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
        """Tell whether an abort or a start has changed this epoch or one before it."""
        return epoch >= self._first_changed_epoch

    def _invalidate_from(self, epoch: float) -> None:
        self._first_changed_epoch = min(self._first_changed_epoch, epoch)
        self._resolved_epochs = {
            e: resolved for e, resolved in self._resolved_epochs.items() if e < epoch
        }

    def _prune(self, oldest: int) -> None:
        """Drop what the list no longer reaches, so that memory stays level for weeks."""
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
    """Apply the concurrency policy and the aborts; also tell until when the flow is busy.

    The meaning of `latest` is a guess: a run that still waits gives way to a newer one. So is what
    `forbid` leaves of a run that comes too early: nothing of a scheduled one, and of another a run
    that is skipped. A draft that would end after `ends_by` is left out.
    """
    runs: list[Run] = []
    busy_until, busy_before = initial_busy_until, initial_busy_until
    waiting_run: Run | None = None
    one_at_a_time = flow.concurrency_policy != "allow"
    for draft in drafts:
        run = Run(flow, draft.number, draft.id, draft.created_at, None, 0, draft.outcome)
        run.start_body = draft.start_body
        is_refused = flow.concurrency_policy == "forbid" and draft.created_at < busy_until
        if draft.outcome == "skipped" or (is_refused and draft.start_body is not None):
            run.concluded_at, run.outcome = draft.created_at + SKIP_DELAY_SECONDS, "skipped"
            if run.concluded_at <= latest_end:
                runs.append(run)
            continue
        if is_refused:
            continue
        superseded = None
        free_at = busy_until
        if (
            flow.concurrency_policy == "latest"
            and waiting_run
            and (waiting_run.started_at or 0) > draft.created_at
        ):
            superseded, free_at = waiting_run, busy_before
        start = max(
            draft.created_at + draft.pending_seconds,
            free_at if one_at_a_time else NEGATIVE_INFINITY,
        )
        run.is_queued = start > draft.created_at + draft.pending_seconds
        run.started_at, run.concluded_at = start, start + draft.duration_seconds
        if draft.abort_after_seconds is not None:
            run.aborted_at = start + draft.abort_after_seconds
        if abort := aborts.get(run.id):
            run.aborted_at, run.concluded_at, run.outcome = (
                abort.requested_at,
                abort.ends_at,
                abort.outcome,
            )
            if abort.requested_at < start:
                run.started_at = None
        if run.concluded_at > latest_end:
            continue
        if superseded:
            superseded.started_at, superseded.aborted_at = None, None
            superseded.concluded_at, superseded.outcome = draft.created_at, "skipped"
        runs.append(run)
        if run.started_at is not None:
            busy_before, busy_until = free_at, max(free_at, run.concluded_at)
            waiting_run = run if run.is_queued else None
        elif superseded:
            busy_until, waiting_run = free_at, None
    return runs, busy_until
