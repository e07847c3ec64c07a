"""The sync worker: a loop that leads, and then reads what is due, or stands by (lead.py)."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from time import monotonic

import structlog
from django.db import DatabaseError, InterfaceError

from dashboard.db import health as db_health
from dashboard.db import notify as db_notify
from dashboard.db.threads import now, run_in_db_thread, set_clock_offset
from dashboard.sync import catalog, lead
from dashboard.sync.lead import LeadLost
from dashboard.sync.reads import Reads, log_errors
from dashboard.upstream.connection import Connection

log = structlog.get_logger(__name__)

TICK_INTERVAL = 0.5  # seconds between two checks for due reads
STANDBY_INTERVAL = 2.0  # seconds between two checks whether the lead is free
RENEWAL_INTERVAL = 5.0  # seconds between two renewals of the lead

Chore = Callable[[Connection], Awaitable[None]]


class Periodic:
    """A chore: `work`, which gets the time, on a database thread each `interval` seconds."""

    def __init__(self, work: Callable[[datetime], None], interval: float) -> None:
        self.work = work
        self.interval = interval
        self._next_at = 0.0

    async def __call__(self, _: object) -> None:
        if monotonic() >= self._next_at:
            self._next_at = monotonic() + self.interval
            await run_in_db_thread(self.work, now())


class SyncWorker:
    """One sync worker; `run` works until its event is set.

    While it leads, `chores` are started on each tick alongside the reads (see aborts/), each once
    its last run has ended. Ticks are at most `tick_interval` seconds apart, and begin at once if a
    process notifies this one (`Topic.READS`). The lead is renewed each `renewal_interval` seconds;
    before that, and before it is taken, `sync_clock` measures the database's clock. If no tick ends
    for `max_round` while it leads, that is logged.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        chores: Sequence[Chore] = (),
        tick_interval: float = TICK_INTERVAL,
        renewal_interval: float = RENEWAL_INTERVAL,
        sync_clock: Callable[[], None] = set_clock_offset,
        max_round: timedelta = lead.MAX_ROUND,
    ) -> None:
        self.connection = connection
        self.chores = chores
        self.tick_interval = tick_interval
        self.renewal_interval = renewal_interval
        self.sync_clock = sync_clock
        self.max_round = max_round
        self.holder = lead.new_holder()
        self.reads: Reads | None = None  # while it leads
        self._renewed_at = 0.0  # by the loop's clock
        self._round_ended_at = now()  # of the last round without a failure, while it leads
        self._is_clock_behind = False
        self._chore_tasks: dict[Chore, asyncio.Task[None]] = {}
        self._woken = asyncio.Event()
        self._is_failing = False  # the last tick failed

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then cancel the reads in progress and give up the lead."""
        tick_task = asyncio.create_task(self._tick_forever())
        stop_task = asyncio.create_task(stop.wait())
        listener = asyncio.create_task(db_notify.listen({db_notify.Topic.READS: self.wake}))
        watch_task = asyncio.create_task(self._watch())
        try:
            await asyncio.wait({tick_task, stop_task}, return_when=asyncio.FIRST_COMPLETED)
            if tick_task.done():
                tick_task.result()  # raises: only a defect ends it
        finally:
            tasks = tick_task, stop_task, listener, watch_task
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._cancel_tasks()
            if self.reads is not None:
                # If this fails, the process counts as killed.
                with contextlib.suppress(DatabaseError, InterfaceError):
                    await run_in_db_thread(lead.release, self.reads.term)

    def wake(self) -> None:
        """Start the next tick at once, on the loop of `run`: something may be due."""
        if self.reads is not None:
            self._woken.set()

    async def _tick_forever(self) -> None:
        has_logged = False
        while True:
            self._woken.clear()  # before the tick, which may not see what is wanted while it runs
            try:
                await self.tick()
            except (DatabaseError, InterfaceError) as error:
                # db/health.py logs outages of the database; this loop just retries.
                if not has_logged and not db_health.is_outage(error):
                    log.exception("sync.tick_failed")
                    has_logged = True
                self._is_failing = True
            else:
                if has_logged:
                    log.info("sync.recovered")
                self._is_failing = has_logged = False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause()):
                    await self._woken.wait()

    async def _watch(self) -> None:
        """Log once if this process leads, but no round ends: nothing is read then."""
        has_logged = False
        while True:
            is_stalled = self.reads is not None and now() - self._round_ended_at > self.max_round
            if is_stalled and not has_logged and db_health.down_since() is None:
                log.error("sync.stalled", since=self._round_ended_at.isoformat())
            has_logged = is_stalled
            await asyncio.sleep(self.max_round.total_seconds() / 6)

    def _pause(self) -> float:
        if db_health.down_since() is not None:
            return db_health.RETRY_INTERVAL
        return STANDBY_INTERVAL if self.reads is None else self.tick_interval

    async def tick(self) -> None:
        """Renew the lead, or take it if it is free; start due reads while it is held."""
        try:
            reads = await self._keep_lead()
            if reads is None:
                return
            if not self._is_clock_behind:
                if not self._is_failing:
                    self._start_chores()
                await reads.start_due()
            self._round_ended_at = now()
        except LeadLost:
            log.warning("sync.lead_lost")
            await self._cancel_tasks()
            self.reads = None

    async def _keep_lead(self) -> Reads | None:
        loop_time = asyncio.get_running_loop().time()
        if self.reads is not None and loop_time - self._renewed_at < self.renewal_interval:
            self.reads.term.verify()
            return self.reads
        await run_in_db_thread(self.sync_clock)
        if self.reads is None:
            term = await run_in_db_thread(lead.take, self.holder, now())
            if term is None:
                return None
            log.info("sync.leads", epoch=term.epoch)
            self._round_ended_at = now()
            self.reads = Reads(self.connection, term, on_first_read=self.wake)
            await term.write(catalog.start, now())
        else:
            if not self._is_failing:  # it may be long ago: a machine that was suspended goes on
                self._round_ended_at = now()
            lag = await run_in_db_thread(lead.renew, self.reads.term, now(), self._round_ended_at)
            if lag and not self._is_clock_behind:
                log.warning("clock.set_back", seconds=round(lag.total_seconds()))
            self._is_clock_behind = bool(lag)
        self._renewed_at = loop_time
        return self.reads

    def _start_chores(self) -> None:
        for chore in self.chores:
            if chore not in self._chore_tasks or self._chore_tasks[chore].done():
                self._chore_tasks[chore] = asyncio.ensure_future(log_errors(chore(self.connection)))

    async def wait_idle(self) -> None:
        """Return once no read or chore is in progress."""
        # An ended task stays in the set until its callbacks run, in the loop's next turn.
        while pending := [task for task in self._all_tasks() if not task.done()]:
            await asyncio.wait(pending)
        await asyncio.sleep(0)

    def _all_tasks(self) -> set[asyncio.Task[None]]:
        reads = self.reads.active if self.reads is not None else set()
        return {*reads, *self._chore_tasks.values()}

    async def _cancel_tasks(self) -> None:
        tasks = self._all_tasks()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
