"""The leader's reads: which start next, within the rate budget, and those in progress.

A failing stage is backed off by cause, and logged once when it begins to fail and once when it
recovers. During an outage (see upstream/connection.py) the token's account is asked for at
intervals, and everything stays due.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import structlog
from django.db import DatabaseError, InterfaceError

from dashboard.db import health as db_health
from dashboard.db.threads import now, run_in_db_thread
from dashboard.models.counters import CounterName, increment, store
from dashboard.northflank import NorthflankError
from dashboard.sync import (
    baselines,
    catalog,
    causes,
    due,
    read_plan,
    schedule,
    search,
)
from dashboard.sync import plan as rules
from dashboard.sync.lead import LeadLost, Term
from dashboard.sync.read_jobs import LinkJob, ListJob, ReadJob, ReadRow, RunJob, StageJob, WorkJob
from dashboard.sync.read_plan import NO_PLAN, ReadPlan
from dashboard.sync.stage_reader import (
    MAX_REQUESTS_PER_FIRST_READ,
    MAX_REQUESTS_PER_READ,
    StageReader,
)
from dashboard.upstream import budget_store
from dashboard.upstream.connection import Connection
from dashboard.upstream.rate_budget import ReadBudget

log = structlog.get_logger(__name__)

PLAN_INTERVAL = 5.0  # seconds between two plans
STARTS_INTERVAL = 600.0  # seconds between two counts of how many runs stages have
MAX_CONCURRENT_READS = 4  # regular reads, without first reads
MAX_FIRST_READS = 8  # beside them
CRASH_PAUSE = 60.0  # seconds until a row is read again whose read ended by a defect


class Reads:
    """The reads of one term; the schedule is in the database, all else is here.

    `on_first_read` is called at the end of each first read: the next one need not wait.
    """

    def __init__(
        self, connection: Connection, term: Term, *, on_first_read: Callable[[], None]
    ) -> None:
        self.connection = connection
        self.term = term
        self.started = 0
        self.active: set[asyncio.Task[None]] = set()  # including first reads
        self.on_first_read = on_first_read
        self._first_reads: set[asyncio.Task[None]] = set()
        self._being_read: defaultdict[type, set[int]] = defaultdict(set)  # keys, by class of job
        self._has_first_reads = False
        self._plan = NO_PLAN
        self._planned_at = -PLAN_INTERVAL  # by the loop's clock, as the other times
        self._starts: dict[int, int] = {}  # new runs by stage, as by read_plan.count_starts
        self._starts_counted_at = 0.0
        self._started_at = asyncio.get_running_loop().time()
        # When requests were sent that are not in the plan; of the last plan.OTHER_READS_TIME.
        self._other_reads: deque[float] = deque()

    async def start_due(self) -> None:
        """Start due reads, up to the rate budget and free slots."""
        loop_time, moment = asyncio.get_running_loop().time(), now()
        if await self._is_idle(loop_time, moment):
            return
        read_budget = await run_in_db_thread(budget_store.load, moment)
        if read_budget.backoff_until is not None:
            return
        if read_budget.is_probing or self.connection.outage:
            self._probe(read_budget)
            return
        # Aborting runs are read from the reserve, even if nothing is left for other reads.
        if not read_budget.may_reconcile_aborts:
            return
        # Requests in progress are not counted yet: stop early, before the reserve is used.
        available = read_budget.requests - MAX_REQUESTS_PER_FIRST_READ * len(self._first_reads)
        slots = (
            min(MAX_CONCURRENT_READS, available // MAX_REQUESTS_PER_READ)
            if read_budget.may_read
            else 0
        )
        await self._start_found(
            RunJob, due.find_runs, moment, self._free_slots(), aborting_only=True
        )
        await self._start_found(
            WorkJob, due.find_works, moment, self._free_slots(), aborting_only=not slots
        )
        if read_budget.requests > 0:  # somebody waits for these: beside all other reads
            await self._start_found(
                LinkJob, search.unanswered_links, moment, MAX_FIRST_READS, is_first=True
            )
        # Half of the slots are for stages, which a backlog of details would delay.
        detail_slots = (slots + 1) // 2 - len(self._being_read[RunJob])
        await self._start_detail_reads(moment, slots, detail_slots)
        # A plan would promise reads that cannot come, and be used for the first of the next window.
        if read_budget.requests < MAX_REQUESTS_PER_READ:
            return
        if self._is_plan_due(loop_time):
            # Set before: a catalog read that ends while the plan is made requests another.
            self._planned_at = loop_time
            self._plan = await self._make_plan(read_budget, moment)
        if self._plan.has_gaps:
            await self._start_first_reads(read_budget, moment)
        # Stages are read for searches ahead of the even rate, like first reads.
        limit = self._first_read_slots(read_budget)
        await self._start_found(StageJob, search.next_stages, moment, limit, is_first=True)
        free_slots = self._free_slots(slots)
        if free_slots > 0:
            started_before = self.started
            await self._start_due_reads(read_budget, moment, slots)
            unneeded_slots = free_slots - (self.started - started_before)
            await self._start_detail_reads(moment, slots, unneeded_slots)

    async def _start_found[R: ReadRow](
        self,
        job: type[ReadJob[R]],
        find: Callable[..., Sequence[R]],
        moment: datetime,
        limit: int,
        *,
        is_first: bool = False,
        **options: bool,
    ) -> int:
        """Start reads of up to `limit` rows that are due; return their number."""
        rows = await run_in_db_thread(find, moment, limit, self._being_read[job], **options)
        for row in rows:
            self._start(job(row, self._plan), is_first=is_first)
        return len(rows)

    async def _is_idle(self, loop_time: float, moment: datetime) -> bool:
        """Return whether this tick has nothing to read, to probe or to plan: most have not."""
        if self._plan.has_gaps or self.connection.outage or self._is_plan_due(loop_time):
            return False
        return not await run_in_db_thread(due.has_due_reads, moment)

    async def _make_plan(self, read_budget: ReadBudget, moment: datetime) -> ReadPlan:
        loop_time = asyncio.get_running_loop().time()
        if loop_time - self._starts_counted_at >= STARTS_INTERVAL or not self._starts_counted_at:
            self._starts_counted_at = loop_time
            self._starts = await run_in_db_thread(read_plan.count_starts, moment)
        while self._other_reads and self._other_reads[0] < loop_time - rules.OTHER_READS_TIME:
            self._other_reads.popleft()
        elapsed = loop_time - self._started_at
        other_reads = rules.other_reads_rate(len(self._other_reads), elapsed)
        return await run_in_db_thread(plan_reads, read_budget, moment, self._starts, other_reads)

    def _is_plan_due(self, loop_time: float) -> bool:
        return loop_time - self._planned_at >= PLAN_INTERVAL

    def plan_again(self) -> None:
        """Have the next tick make a new plan."""
        self._planned_at = -PLAN_INTERVAL

    @property
    def _regular_read_count(self) -> int:
        """The number of reads in progress, without first reads."""
        return len(self.active) - len(self._first_reads)

    def _free_slots(self, slots: int = MAX_CONCURRENT_READS) -> int:
        return slots - self._regular_read_count

    async def _start_detail_reads(self, moment: datetime, slots: int, limit: int) -> None:
        """Start up to `limit` due reads of run details, in free slots."""
        limit = min(limit, self._free_slots(slots))
        await self._start_found(RunJob, due.find_runs, moment, limit)

    async def _start_first_reads(self, read_budget: ReadBudget, moment: datetime) -> None:
        """Start first reads, ahead of the even rate."""
        limit = self._first_read_slots(read_budget)
        if limit <= 0:
            return
        limit -= await self._start_found(
            ListJob, due.find_lists, moment, limit, is_first=True, never_synced=True
        )
        await self._start_found(StageJob, due.find_first_reads, moment, limit, is_first=True)
        if self._has_first_reads and not self._first_reads:
            # None are left, or all are backed off: now it is known how many runs stages have.
            self._starts_counted_at = 0.0
            self.plan_again()
        self._has_first_reads = bool(self._first_reads)

    def _first_read_slots(self, read_budget: ReadBudget) -> int:
        available = min(
            read_budget.first_read_requests,
            read_budget.requests - MAX_REQUESTS_PER_READ * self._regular_read_count,
        )
        most = min(available // MAX_REQUESTS_PER_FIRST_READ, MAX_FIRST_READS)
        return most - len(self._first_reads)

    async def _start_due_reads(self, read_budget: ReadBudget, moment: datetime, slots: int) -> None:
        """Start due reads: only urgent ones while first reads are in progress, which come first."""
        is_planned = read_budget.may_read_planned and not self._first_reads
        if is_planned:
            await self._start_found(ListJob, due.find_lists, moment, 1)
        await self._start_found(
            StageJob, due.find_stages, moment, self._free_slots(slots), urgent_only=not is_planned
        )

    def _probe(self, read_budget: ReadBudget) -> None:
        """Ask whether Northflank answers again, with one request at a time."""
        if read_budget.may_reconcile_aborts and not self.active and self.connection.may_call():
            self._start_task(self._check_auth())

    async def _check_auth(self) -> None:
        await self.connection.call(lambda nf: nf.get_auth())

    def _start_task(self, work: Awaitable[None]) -> asyncio.Task[None]:
        self.started += 1
        task = asyncio.ensure_future(log_errors(work))
        self.active.add(task)
        task.add_done_callback(self.active.discard)
        return task

    def _start(self, job: ReadJob[Any], *, is_first: bool) -> None:
        self._being_read[type(job)].add(job.row.pk)
        task = self._start_task(self.read(job, is_first=is_first))
        if is_first:
            self._first_reads.add(task)
            task.add_done_callback(self._finish_first_read)

    def _finish_first_read(self, task: asyncio.Task[None]) -> None:
        self._first_reads.discard(task)
        self.on_first_read()

    async def read(self, job: ReadJob[Any], *, is_first: bool = False) -> None:
        """Do one read, and record its result or failure."""
        loop = asyncio.get_running_loop()
        moment, being_read = now(), self._being_read[type(job)]
        reader = StageReader(self.connection, self.term, is_first)
        try:
            await job.read(reader)
        except NorthflankError as error:
            if job.is_awaited or not self.connection.is_account_wide(error):
                await self.term.write(_record_failure, job, error, moment)
        except (LeadLost, DatabaseError, InterfaceError, asyncio.CancelledError):
            raise
        except Exception:
            # It is still due, and would be read, and fail, at each tick.
            loop.call_later(CRASH_PAUSE, being_read.discard, job.row.pk)
            being_read = set()
            raise
        else:
            if isinstance(job, ListJob) and job.row.synced_at is None:
                self.plan_again()  # there may be unread stages
        finally:
            being_read.discard(job.row.pk)
            self._other_reads.extend([loop.time()] * job.unplanned(reader.request_count))


def _record_failure(job: ReadJob[Any], error: NorthflankError, moment: datetime) -> None:
    job.fail(error, moment)
    store([increment(CounterName.SYSTEM_ERRORS, "sync", error.cause)])


async def log_errors(work: Awaitable[None]) -> None:
    """Do `work`, and log a defect: it must not stop others."""
    try:
        await work
    except (NorthflankError, LeadLost):
        log.debug("read.failed", exc_info=True)  # already recorded and logged where it was raised
    except Exception as error:
        if not db_health.is_outage(error):  # outages are logged by db/health.py
            log.exception("read.crashed")


def plan_reads(
    read_budget: ReadBudget, moment: datetime, starts: Mapping[int, int], other_reads: float
) -> ReadPlan:
    """Plan the next reads at the rate that the budget allows; make old lists of projects and
    pipelines due. Other arguments as for `read_plan.make_plan`.
    """
    rate = read_budget.requests_per_second
    other_reads += rules.payback_rate(read_budget.burst, read_budget.margin)
    baselines.schedule_next_detail(moment, schedule.BASELINE_INTERVAL)
    plan = read_plan.make_plan(rate, moment, starts, other_reads=other_reads)
    catalog.refresh_now(moment, plan.lists_interval)
    if read_budget.may_read and not plan.has_gaps:  # first reads come first
        causes.schedule_next_detail(moment)
    return plan
