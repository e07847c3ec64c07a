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

from .catalog import Flow, Staged
from .life import EPOCH, HOUR, Life, live

KEPT = 72 * HOUR
"""How far back the list of runs reaches, unless asked otherwise."""
KEPT_IF_BRIEF = 12 * HOUR
IDLE = 2 * HOUR
"""How long before the scenario opened the last run of an idle flow had ended."""

NEVER = -math.inf

STUCK = EPOCH + HOUR / 2
"""Longer than an epoch: the next stuck run is there half an hour before this one ends."""
JAM = EPOCH - HOUR / 3
"""Shorter than an epoch: what has queued up behind the jam passes before the next one."""
JAMMED_EVERY = 8
"""Epochs from one jam to the next: a day, of which all but three hours show what is usual."""
REFUSED_AFTER = 0.4
"""Seconds after which a run that is not carried out has ended."""


@dataclass(slots=True, eq=False)
class Run:
    """A run with its times; those in the future are what happens if nobody interferes."""

    flow: Flow
    number: int | str
    id: str
    created: float
    started: float | None
    concluded: float
    outcome: str
    queued: bool = False
    aborted: float | None = None
    """When the abort was asked for."""
    request: dict[str, Any] | None = None
    """What a run that was started by hand, or staged, was given."""

    def status(self, now: float, life: Life) -> str:
        if now >= self.concluded:
            return self.outcome
        if self.aborted is not None and now >= self.aborted:
            return "aborting"
        if self.started is None or now < self.started:
            return "queued" if self.queued else "pending"
        return life.status(now - self.started)

    def updated(self, now: float, life: Life) -> float:
        """Tell when the run last changed, up to now."""
        if now >= self.concluded:
            return self.concluded
        if self.aborted is not None and now >= self.aborted:
            return self.aborted
        if self.started is None or now < self.started:
            return self.created
        return self.started + life.changed(now - self.started)


@dataclass(frozen=True, slots=True)
class Abort:
    at: float
    until: float
    outcome: str


@dataclass(frozen=True, slots=True)
class _Draft:
    """A run before the policy has had its say."""

    number: int | str
    id: str
    created: float
    pending: float
    seconds: float
    outcome: str
    aborted_after: float | None
    request: dict[str, Any] | None = None


class History:
    def __init__(
        self,
        seed: int,
        flow: Flow,
        opened: float = 0.0,
        origin: float = 0.0,
        kept: float = KEPT,
    ) -> None:
        self.seed = seed
        self.flow = flow
        self.aborts: dict[str, Abort] = {}
        self._started: dict[int, list[_Draft]] = {}
        self._settled: dict[int, tuple[list[Run], float]] = {}
        self._first_touched: float = math.inf
        self._reach: float = NEVER
        self._kept = min(kept, KEPT_IF_BRIEF) if "brief" in flow.quirks else kept
        self._schedule_ends = opened - IDLE if "idle" in flow.quirks else math.inf
        self._slots = max(1, int(EPOCH / flow.every))
        # Each flow has its own beginning of an epoch, or all would be stuck at the same time.
        digest = blake2b(f"{seed}/{flow.key}".encode(), digest_size=4).digest()
        self._offset = origin + EPOCH * int.from_bytes(digest) / 2**32
        self._opening = self._epoch(opened)
        self._staged = {f"staged {opened:.0f} {n}": run for n, run in enumerate(flow.staged)}
        for number, staged in self._staged.items():
            self._stage(number, staged, opened)

    def newest_first(self, now: float) -> Iterator[Run]:
        """Yield the runs that exist now; an epoch is worked out when its first run is asked for."""
        newest = self._epoch(now)
        oldest = self._epoch(now - self._kept)
        self._forget(oldest)
        for epoch in range(newest, oldest - 1, -1):
            for run in reversed(self._runs(epoch)):
                if now - self._kept <= run.created <= now:
                    yield run

    def find(self, run_id: str, now: float) -> Run | None:
        return next((run for run in self.newest_first(now) if run.id == run_id), None)

    def in_flight(self, now: float) -> list[Run]:
        """Return the runs that have not concluded, newest first."""
        return [run for run in self.newest_first(now) if now < run.concluded]

    def abort(self, run: Run, abort: Abort) -> None:
        self.aborts[run.id] = abort
        # What was staged may be kept in an epoch before its own.
        staged = run.number in self._staged
        self._settle_again(self._first_touched if staged else self._epoch(run.created))

    def start(self, now: float, request: dict[str, Any]) -> str:
        """Start a run by hand and return its id."""
        epoch = self._epoch(now)
        drafts = self._started.setdefault(epoch, [])
        # The time is part of the number, or a restarted sandbox would give an id out again.
        number = f"started {now:.6f} {len(drafts)}"
        drafts.append(self._draft(number, now, self._live(number), request))
        self._settle_again(epoch)
        return drafts[-1].id

    def life(self, run: Run) -> Life:
        return self._live(run.number)

    def _stage(self, number: str, staged: Staged, opened: float) -> None:
        """Put a run in its place."""
        life = self._live(number)
        lead = life.pending + life.began(staged.troubles[0].ref) if staged.troubles else 0
        created = opened - staged.since - lead
        draft = self._draft(number, created, life, {"name": staged.name})
        epoch = self._epoch(created)
        if self.flow.policy != "allow":
            # All in one: who waits in an epoch knows nothing of those that come in the next.
            epoch = min(self._started, default=epoch)
        self._started.setdefault(epoch, []).append(draft)
        self._first_touched = min(self._first_touched, epoch)
        if staged.aborted is not None:
            self.aborts[draft.id] = Abort(opened - staged.aborted, math.inf, "aborted")
        if self.flow.policy != "allow":
            self._schedule_ends = min(self._schedule_ends, created)

    # --- epochs ------------------------------------------------------------------------------

    def _epoch(self, at: float) -> int:
        return math.floor((at - self._offset) / EPOCH)

    def _begin(self, epoch: int) -> float:
        return epoch * EPOCH + self._offset

    def _id(self, number: int | str) -> str:
        return str(uuid5(NAMESPACE_URL, f"sandbox:{self.seed}/{self.flow.key}/{number}"))

    def _hang(self, number: int | str) -> float:
        """Tell how long the run must hang: the first of an epoch, in a flow that is stuck."""
        if isinstance(number, str) or number % self._slots:
            return 0
        if "stuck" in self.flow.quirks:
            return STUCK
        # Were the flow jammed always, it would be usual to wait for hours.
        jammed = (number // self._slots - self._opening) % JAMMED_EVERY == 0
        return JAM if "jam" in self.flow.quirks and jammed else 0

    def _live(self, number: int | str) -> Life:
        staged = self._staged.get(number) if isinstance(number, str) else None
        return live(self.seed, self.flow, number, hang=self._hang(number), staged=staged)

    def _draft(
        self,
        number: int | str,
        created: float,
        life: Life,
        request: dict[str, Any] | None = None,
    ) -> _Draft:
        return _Draft(
            *(number, self._id(number), created, life.pending, life.seconds, life.outcome),
            aborted_after=life.aborted_after,
            request=request,
        )

    def _drafts(self, epoch: int) -> list[_Draft]:
        """Draft the scheduled runs of an epoch, oldest first."""
        drafts = []
        width = EPOCH / self._slots
        for slot in range(self._slots):
            number = epoch * self._slots + slot
            # Somewhere in its slot, but the run that hangs is there from the beginning.
            jitter = 0 if self._hang(number) else 0.8 * int(self._id(number)[:4], 16) / 0x10000
            created = self._begin(epoch) + (slot + jitter) * width
            drafts.append(self._draft(number, created, self._live(number)))
        return drafts

    def _runs(self, epoch: int) -> list[Run]:
        return self._settle_epoch(epoch)[0]

    def _settle_epoch(self, epoch: int) -> tuple[list[Run], float]:
        if epoch in self._settled:
            return self._settled[epoch]
        drafts = self._drafts(epoch)
        # What is planned does not depend on aborts and starts, so these move runs that exist
        # already but never make one come or go that was there to be seen.
        ends = math.inf if self.flow.policy == "allow" else self._begin(epoch + 1)
        ends = min(ends, self._schedule_ends)
        settled = settle(self.flow, drafts, {}, ends_by=ends)
        if self._touched(epoch):
            planned = {run.id for run in settled[0]}
            drafts = [draft for draft in drafts if draft.id in planned]
            drafts = sorted(drafts + self._started.get(epoch, []), key=lambda d: d.created)
            busy = self._settle_epoch(epoch - 1)[1] if self._touched(epoch - 1) else NEVER
            settled = settle(self.flow, drafts, self.aborts, busy_until=busy)
        self._settled[epoch] = settled
        return settled

    def _touched(self, epoch: int) -> bool:
        """Tell whether an abort or a start has changed this epoch or one before it."""
        return epoch >= self._first_touched

    def _settle_again(self, epoch: float) -> None:
        self._first_touched = min(self._first_touched, epoch)
        self._settled = {e: settled for e, settled in self._settled.items() if e < epoch}

    def _forget(self, oldest: int) -> None:
        """Drop what the list no longer reaches, so that memory stays level for weeks."""
        if oldest <= self._reach:
            return
        self._reach = oldest
        kept = {e: settled for e, settled in self._settled.items() if e >= oldest}
        gone = {run.id for e in self._settled.keys() - kept for run in self._settled[e][0]}
        self._settled = kept
        self._started = {e: drafts for e, drafts in self._started.items() if e >= oldest}
        self.aborts = {i: abort for i, abort in self.aborts.items() if i not in gone}
        if self._first_touched < oldest:
            self._first_touched = oldest if self.aborts or self._started else math.inf


def settle(
    flow: Flow,
    drafts: Sequence[_Draft],
    aborts: dict[str, Abort],
    *,
    busy_until: float = NEVER,
    ends_by: float = math.inf,
) -> tuple[list[Run], float]:
    """Apply the concurrency policy and the aborts; also tell until when the flow is busy.

    The meaning of `latest` is a guess: a run that still waits gives way to a newer one. So is what
    `forbid` leaves of a run that comes too early: nothing of a scheduled one, and of another a run
    that is skipped. A draft that would end after `ends_by` is left out.
    """
    runs: list[Run] = []
    busy, busy_before = busy_until, busy_until
    waiting: Run | None = None
    one_at_a_time = flow.policy != "allow"
    for draft in drafts:
        run = Run(flow, draft.number, draft.id, draft.created, None, 0, draft.outcome)
        run.request = draft.request
        kept_out = flow.policy == "forbid" and draft.created < busy
        if draft.outcome == "skipped" or (kept_out and draft.request is not None):
            run.concluded, run.outcome = draft.created + REFUSED_AFTER, "skipped"
            if run.concluded <= ends_by:
                runs.append(run)
            continue
        if kept_out:
            continue
        replaces = None
        free = busy
        if flow.policy == "latest" and waiting and (waiting.started or 0) > draft.created:
            replaces, free = waiting, busy_before
        begin = max(draft.created + draft.pending, free if one_at_a_time else NEVER)
        run.queued = begin > draft.created + draft.pending
        run.started, run.concluded = begin, begin + draft.seconds
        if draft.aborted_after is not None:
            run.aborted = begin + draft.aborted_after
        if abort := aborts.get(run.id):
            run.aborted, run.concluded, run.outcome = abort.at, abort.until, abort.outcome
            if abort.at < begin:
                run.started = None
        if run.concluded > ends_by:
            continue
        if replaces:
            replaces.started, replaces.aborted = None, None
            replaces.concluded, replaces.outcome = draft.created, "skipped"
        runs.append(run)
        if run.started is not None:
            busy_before, busy = free, max(free, run.concluded)
            waiting = run if run.queued else None
        elif replaces:
            busy, waiting = free, None
    return runs, busy
