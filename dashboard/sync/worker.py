"""The sync worker: a loop that leases what is due, reads it, and schedules the next read.

Any number of workers may share a PostgreSQL database. A failing stage is backed off by cause, and
logged once when it begins to fail and once when it recovers. During an outage (see
upstream/connection.py) one read is tried at intervals, of a run with an open abort or else of a
stage; the rest stays due.
"""

import asyncio
import contextlib
import os
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import structlog
from django.db import DatabaseError, InterfaceError
from django.utils.translation import gettext as _

from dashboard.db import health as db_health
from dashboard.db.prepared import update_row
from dashboard.db.threads import now, run_in_db_thread, set_clock_offset
from dashboard.models import CatalogSync, RequestCounter, Run, Stage, Worker
from dashboard.models.catalog import ListOrder
from dashboard.northflank import (
    NorthflankError,
    NotFound,
    Page,
    fetch_all_pages,
)
from dashboard.sync import (
    baselines,
    catalog,
    clock_correction,
    leases,
    omitted_entries,
    read_plan,
    schedule,
)
from dashboard.sync.read_plan import ReadPlan
from dashboard.sync.reports import freshness
from dashboard.sync.schedule import Gap
from dashboard.sync.stage_reader import (
    MAX_REQUESTS_PER_FIRST_READ,
    MAX_REQUESTS_PER_READ,
    StageReader,
    read_run,
)
from dashboard.upstream import access_hint, budget_store
from dashboard.upstream.connection import Connection
from dashboard.upstream.rate_budget import ReadBudget

log = structlog.get_logger(__name__)

TICK_INTERVAL = 0.5  # seconds between two checks for due reads
PLAN_INTERVAL = 5.0  # seconds between two plans
STARTS_INTERVAL = 600.0  # seconds between two counts of how many runs stages have
HOUR = 3600.0  # seconds
HEARTBEAT_INTERVAL = 5.0  # seconds; each heartbeat renews the leases
MAX_CONCURRENT_READS = 4  # regular reads, without first reads
# First reads have slots of their own: initially this many, one more after each quick answer, half
# as many after each failure.
INITIAL_FIRST_READS, MAX_FIRST_READS = 4, 12
QUICK_ANSWER = 2.0  # seconds; with slower answers more concurrent requests would only queue up
WORKER_RETENTION = timedelta(hours=1)  # how long the row of a killed worker is kept

Chore = Callable[[Connection], Awaitable[None]]


class SyncWorker:
    """One sync worker; `run` works until its event is set.

    `chores` are started on each tick alongside the reads (see aborts/), each once its last run has
    ended. Heartbeats are `heartbeat_interval` seconds apart; before each, `sync_clock` measures the
    database's clock.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        chores: Sequence[Chore] = (),
        heartbeat_interval: float = HEARTBEAT_INTERVAL,
        sync_clock: Callable[[], None] = set_clock_offset,
    ) -> None:
        self.connection = connection
        self.chores = chores
        self.heartbeat_interval = heartbeat_interval
        self.sync_clock = sync_clock
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self.reads_started = 0
        self._plan: ReadPlan | None = None
        self._planned_at = 0.0
        self._heartbeat_at = 0.0
        self._heartbeat: asyncio.Future[None] | None = None  # the latest
        self.active_reads: set[asyncio.Task[None]] = set()  # including first reads
        self._first_reads: set[asyncio.Task[None]] = set()
        self._detail_reads: set[asyncio.Task[None]] = set()  # of runs without an open abort
        self.first_read_limit = INITIAL_FIRST_READS
        self._has_first_reads = False
        self._first_read_ended = asyncio.Event()
        self._chore_tasks: dict[Chore, asyncio.Task[None]] = {}
        self._leased_stages: set[int] = set()  # keys
        self._started_at = 0.0
        self._starts: dict[int, int] = {}  # new runs by stage, as by read_plan.count_starts
        self._starts_counted_at = 0.0
        # When requests were sent that are not in the plan, by the loop's clock; of the last hour.
        self._other_reads: deque[float] = deque()
        self._live_workers = [self.name]  # as of the last heartbeat, in an order common to all
        self._is_failing = False  # the last tick failed

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then cancel the reads in progress."""
        self._started_at = asyncio.get_running_loop().time()
        tick_task = asyncio.create_task(self._tick_forever())
        stop_task = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({tick_task, stop_task}, return_when=asyncio.FIRST_COMPLETED)
            if tick_task.done():
                tick_task.result()  # raises: only a defect ends it
        finally:
            tasks = {tick_task, stop_task} | self._all_tasks()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._heartbeat is not None:  # it would write the row again after its deletion
                await asyncio.gather(self._heartbeat, return_exceptions=True)
            # If this fails, the worker counts as killed.
            with contextlib.suppress(DatabaseError, InterfaceError):
                await run_in_db_thread(Worker.objects.filter(name=self.name).delete)

    async def _tick_forever(self) -> None:
        has_started = has_logged = False
        while True:
            try:
                if not has_started:
                    await run_in_db_thread(self.sync_clock)
                    await run_in_db_thread(catalog.start, now())
                    has_started = True
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
            self._first_read_ended.clear()
            is_database_down = db_health.down_since() is not None
            # The end of a first read starts the next tick at once.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(
                    db_health.RETRY_INTERVAL if is_database_down else TICK_INTERVAL
                ):
                    await self._first_read_ended.wait()

    async def tick(self) -> None:
        """Start due reads, up to the rate budget and free slots."""
        loop_time = asyncio.get_running_loop().time()
        if loop_time - self._heartbeat_at >= self.heartbeat_interval or not self._heartbeat_at:
            self._heartbeat_at = loop_time
            await run_in_db_thread(self.sync_clock)
            await run_in_db_thread(clock_correction.correct_timestamps, now())
            self._heartbeat = asyncio.ensure_future(
                run_in_db_thread(record_heartbeat, self.name, set(self._leased_stages), now())
            )
            await asyncio.shield(self._heartbeat)
            self._live_workers = await run_in_db_thread(find_live_workers, self.name, now())
        if not self._is_failing:
            self._start_chores()
        moment = now()
        if await self._is_idle(loop_time, moment):
            return
        read_budget = await run_in_db_thread(budget_store.load, moment)
        if read_budget.backoff_until is not None:
            return
        if read_budget.is_probing or self.connection.outage:
            await self._probe(read_budget, moment)
            return
        # Aborting runs are read from the reserve, even if nothing is left for other reads.
        if not read_budget.may_reconcile_aborts:
            return
        # Requests in progress are not counted yet: stop early, before the reserve is used.
        available = read_budget.requests - MAX_REQUESTS_PER_FIRST_READ * len(self._first_reads)
        slots = (
            min(MAX_CONCURRENT_READS, self._own_share(available // MAX_REQUESTS_PER_READ))
            if read_budget.may_read
            else 0
        )
        for run in await run_in_db_thread(
            leases.claim_runs,
            moment,
            MAX_CONCURRENT_READS - self._regular_read_count,
            aborting_only=True,
        ):
            self.start_read(self._read_run(run))
        # Half of the slots are for stages, which a backlog of details would delay.
        await self._start_detail_reads(moment, slots, (slots + 1) // 2 - len(self._detail_reads))
        # A plan would promise reads that cannot come, and be used for the first of the next window.
        if not _can_read(read_budget):
            return
        if self._plan is None or self._is_plan_due(loop_time):
            # Set before: a catalog read that ends while the plan is made requests another.
            self._planned_at = loop_time
            self._plan = await self._make_plan(read_budget, moment)
        has_first_reads = (
            await self._start_first_reads(read_budget, moment, self._plan)
            if self._plan.has_gaps
            else False
        )
        free_slots = slots - self._regular_read_count
        if free_slots > 0:
            started_before = self.reads_started
            await self._start_due_reads(
                read_budget, moment, self._plan, slots, has_first_reads=has_first_reads
            )
            unneeded_slots = free_slots - (self.reads_started - started_before)
            await self._start_detail_reads(moment, slots, unneeded_slots)

    async def _is_idle(self, loop_time: float, moment: datetime) -> bool:
        """Return whether this tick has nothing to read, to probe or to plan: most have not."""
        if self._plan is None or self._plan.has_gaps or self.connection.outage:
            return False
        if self._is_plan_due(loop_time):
            return False
        return not await run_in_db_thread(leases.has_due_reads, moment)

    async def _make_plan(self, read_budget: ReadBudget, moment: datetime) -> ReadPlan:
        loop_time = asyncio.get_running_loop().time()
        if loop_time - self._starts_counted_at >= STARTS_INTERVAL or not self._starts_counted_at:
            self._starts_counted_at = loop_time
            self._starts = await run_in_db_thread(read_plan.count_starts, moment)
        while self._other_reads and self._other_reads[0] < loop_time - HOUR:
            self._other_reads.popleft()
        hours = min(max(loop_time - self._started_at, HOUR / 6), HOUR)
        return await run_in_db_thread(
            plan_reads, read_budget, moment, self._starts, len(self._other_reads) / hours
        )

    def _is_plan_due(self, loop_time: float) -> bool:
        return loop_time - self._planned_at >= PLAN_INTERVAL

    def plan_again(self) -> None:
        """Have the next tick make a new plan."""
        self._planned_at = -PLAN_INTERVAL

    @property
    def _regular_read_count(self) -> int:
        """The number of reads in progress, without first reads."""
        return len(self.active_reads) - len(self._first_reads)

    def _own_share(self, reads: int) -> int:
        """Return how many of `reads`, for which all workers together have requests, are ours."""
        workers = self._live_workers
        return (reads + len(workers) - 1 - workers.index(self.name)) // len(workers)

    async def _start_detail_reads(self, moment: datetime, slots: int, limit: int) -> None:
        """Start up to `limit` due reads of run details, in free slots."""
        limit = min(limit, slots - self._regular_read_count)
        if limit <= 0:
            return
        for run in await run_in_db_thread(leases.claim_runs, moment, limit):
            task = self.start_read(self._read_run(run))
            self._detail_reads.add(task)
            task.add_done_callback(self._detail_reads.discard)

    async def _start_first_reads(
        self, read_budget: ReadBudget, moment: datetime, plan: ReadPlan
    ) -> bool:
        """Start first reads, ahead of the even rate; return whether any are in progress."""
        available = min(
            read_budget.first_read_requests,
            read_budget.requests - MAX_REQUESTS_PER_READ * self._regular_read_count,
        )
        own_share = self._own_share(available // MAX_REQUESTS_PER_FIRST_READ)
        limit = min(own_share, self.first_read_limit) - len(self._first_reads)
        if limit <= 0:
            return bool(self._first_reads)
        for catalog_sync in await run_in_db_thread(catalog.claim_first_reads, moment, limit):
            self._start_first_read(self._read_catalog_list(catalog_sync, plan))
            limit -= 1
        for stage in await run_in_db_thread(leases.claim_first_reads, moment, limit):
            self._leased_stages.add(stage.pk)
            self._start_first_read(self.read_new_stage(stage, plan))
            limit -= 1
        if self._has_first_reads and not self._first_reads:
            self.plan_again()  # none are left, or all are backed off
        self._has_first_reads = bool(self._first_reads)
        return self._has_first_reads

    async def _start_due_reads(
        self,
        read_budget: ReadBudget,
        moment: datetime,
        plan: ReadPlan,
        slots: int,
        *,
        has_first_reads: bool,
    ) -> None:
        """Start due reads; `has_first_reads`: only urgent ones, since first reads come first."""
        may_read_planned = read_budget.may_read_planned and not has_first_reads
        catalog_sync = (
            await run_in_db_thread(catalog.claim_due, moment) if may_read_planned else None
        )
        if catalog_sync is not None:
            self.start_read(self._read_catalog_list(catalog_sync, plan))
        has_gaps = may_read_planned and plan.has_gaps
        for stage in await run_in_db_thread(
            leases.claim_stages,
            moment,
            slots - self._regular_read_count,
            urgent_only=not may_read_planned,
            runs_only=has_first_reads,
        ):
            self._start_stage_read(stage, plan, runs_only=has_first_reads)
        if has_gaps and slots > self._regular_read_count:
            first_read_stages = await run_in_db_thread(
                leases.claim_first_reads, moment, slots - self._regular_read_count
            )
            for stage in first_read_stages:
                self._leased_stages.add(stage.pk)
                self.start_read(self.read_new_stage(stage, plan))

    def _start_chores(self) -> None:
        for chore in self.chores:
            if chore not in self._chore_tasks or self._chore_tasks[chore].done():
                self._chore_tasks[chore] = asyncio.ensure_future(
                    _log_errors(chore(self.connection))
                )

    async def _probe(self, read_budget: ReadBudget, moment: datetime) -> None:
        """Do one read, if none is in progress; after a 429, only one process may.

        If nothing is due, or only the reserve is left, ask for the token's account.
        """
        if (
            not read_budget.may_reconcile_aborts
            or self.active_reads
            or not self.connection.may_call()
        ):
            return
        if read_budget.is_probing and not await run_in_db_thread(budget_store.claim_probe, moment):
            return
        # From the reserve only what an abort needs: its run, or whether Northflank answers again.
        for run in await run_in_db_thread(leases.claim_runs, moment, 1, aborting_only=True):
            self.start_read(self._read_run(run))
            return
        if read_budget.requests <= 0:
            self.start_read(self._check_auth())
            return
        plan = await self._make_plan(read_budget, moment)
        for stage in await run_in_db_thread(leases.claim_stages, moment, 1):
            self._start_stage_read(stage, plan)
            return
        catalog_sync = await run_in_db_thread(catalog.claim_due, moment)
        self.start_read(
            self._read_catalog_list(catalog_sync, plan)
            if catalog_sync is not None
            else self._check_auth()
        )

    async def _check_auth(self) -> None:
        await self.connection.call(lambda nf: nf.get_auth())

    async def wait_idle(self) -> None:
        """Return once no read or chore is in progress."""
        # An ended task stays in the set until its callbacks run, in the loop's next turn.
        while pending := [task for task in self._all_tasks() if not task.done()]:
            await asyncio.wait(pending)
        await asyncio.sleep(0)

    def _all_tasks(self) -> set[asyncio.Task[None]]:
        return {*self.active_reads, *self._chore_tasks.values()}

    def start_read(self, work: Awaitable[None]) -> asyncio.Task[None]:
        """Start `work` as a concurrent task and return it; errors it raises are logged."""
        self.reads_started += 1
        task = asyncio.ensure_future(_log_errors(work))
        self.active_reads.add(task)
        task.add_done_callback(self.active_reads.discard)
        return task

    def _start_first_read(self, work: Awaitable[None]) -> None:
        task = self.start_read(work)
        self._first_reads.add(task)
        task.add_done_callback(self._finish_first_read)

    def _finish_first_read(self, task: asyncio.Task[None]) -> None:
        self._first_reads.discard(task)
        self._first_read_ended.set()

    @property
    def _reader(self) -> StageReader:
        """A reader for the current task, marked if the task is a first read."""
        return StageReader(
            self.connection, is_first_read=asyncio.current_task() in self._first_reads
        )

    def _start_stage_read(self, stage: Stage, plan: ReadPlan, *, runs_only: bool = False) -> None:
        self._leased_stages.add(stage.pk)
        # A stage newer than the plan is read like a gap: its runs before its flow. After a failure
        # its flow is read first, since it may have none.
        is_gap = not stage.failures and schedule.find_gap(stage, now()) is not None
        self.start_read(
            self.read_new_stage(stage, plan)
            if is_gap
            else self.read_stage(stage, plan, runs_only=runs_only)
        )

    async def _read_catalog_list(self, catalog_sync: CatalogSync, plan: ReadPlan) -> None:
        moment = now()
        project = catalog_sync.project
        seq = await run_in_db_thread(RequestCounter.take_next)
        try:
            if project is None:
                projects = await self._reader.call(
                    lambda nf: fetch_all_pages(nf.list_projects),
                    request_seq=seq,
                )
                is_unconfirmed = await run_in_db_thread(
                    catalog.mirror_projects, projects, now=moment, request_seq=seq
                )
                whole_list: Page[Any] = projects
            else:
                slug = project.slug
                pipelines = await self._reader.call(
                    lambda nf: fetch_all_pages(lambda page: nf.list_pipelines(slug, page)),
                    request_seq=seq,
                )
                is_unconfirmed = await run_in_db_thread(
                    catalog.mirror_pipelines, project, pipelines, now=moment, request_seq=seq
                )
                whole_list = pipelines
        except NorthflankError as error:
            if self.connection.is_account_wide(error):
                await run_in_db_thread(_retry_catalog_read, catalog_sync, moment)
            else:
                await run_in_db_thread(_record_catalog_failure, catalog_sync, error, moment)
        else:
            interval = (
                min(plan.lists_interval, catalog.REMOVAL_CONFIRMATION_TIME)
                if is_unconfirmed
                else plan.lists_interval
            )
            await run_in_db_thread(_record_catalog_read, catalog_sync, whole_list, moment, interval)
            if catalog_sync.synced_at is None:
                self.plan_again()  # there may be unread stages

    async def read_new_stage(self, stage: Stage, plan: ReadPlan) -> None:
        """Read what a leased stage lacks, its newest runs or the older ones in flight.

        Record the result, and release the stage.
        """
        moment, started_at = now(), asyncio.get_running_loop().time()
        try:
            if schedule.find_gap(stage, moment) is Gap.OLDER_IN_FLIGHT:
                await self._reader.read_in_flight(stage)
                updates: dict[str, object] = {"in_flight_incomplete": False}
            else:
                updates = await self._reader.read_newest_runs(stage)
        except NorthflankError as error:
            self.first_read_limit = max(self.first_read_limit // 2, 1)
            if self.connection.is_account_wide(error):
                await run_in_db_thread(leases.requeue, stage.pk, now())
                return
            await run_in_db_thread(_record_stage_failure, stage, error, moment, plan)
        else:
            if asyncio.get_running_loop().time() - started_at < QUICK_ANSWER:
                self.first_read_limit = min(self.first_read_limit + 1, MAX_FIRST_READS)
            has_flow = updates.get("has_flow", stage.has_flow)
            flow_error = {} if has_flow is False else _known_flow_error(stage)
            await run_in_db_thread(
                _record_stage_read, stage, moment, plan, flow_error, is_first=True, **updates
            )
        finally:
            self._leased_stages.discard(stage.pk)

    async def read_stage(self, stage: Stage, plan: ReadPlan, *, runs_only: bool = False) -> None:
        """Read a leased stage as planned, record the result, and release it.

        `runs_only`: without its release flow, unless it may have none.
        """
        moment, reader = now(), self._reader
        has_event = leases.has_event(stage)
        fresh_until = stage.fresh_until if not stage.failures else None
        is_fresh = fresh_until is not None and fresh_until > moment
        if stage.flow_synced_at is None and is_fresh and not _known_flow_error(stage):
            await self._read_flow(stage, plan, reader)
            return
        try:
            can_wait = runs_only and stage.has_flow and not stage.failures
            flow_error = _known_flow_error(stage)
            if not can_wait and _is_flow_due(stage, moment):
                flow_error = await self._try_flow(stage, moment, reader)
            if stage.has_flow:
                # Not after a failure, which may be that of an older page.
                with_history = not stage.failures and schedule.is_history_due(
                    stage.synced_at, _interval(stage), moment
                )
                await reader.read_runs(stage, with_history=with_history)
        except NorthflankError as error:
            if self.connection.is_account_wide(error):
                await run_in_db_thread(leases.requeue, stage.pk, now())
                return
            await run_in_db_thread(_record_stage_failure, stage, error, moment, plan)
        else:
            await run_in_db_thread(
                _record_stage_read, stage, moment, plan, flow_error, in_flight_incomplete=False
            )
        finally:
            self._leased_stages.discard(stage.pk)
            self._count_other_reads(reader.request_count - (0 if has_event else 1))

    def _count_other_reads(self, requests: int) -> None:
        moment = asyncio.get_running_loop().time()
        self._other_reads.extend([moment] * requests)

    async def _try_flow(
        self, stage: Stage, moment: datetime, reader: StageReader
    ) -> dict[str, object]:
        """Read a stage's release flow; return the error fields of one that keeps failing.

        Raises NorthflankError at the first failure, and if the stage may have no flow any more:
        then its runs are not read either.
        """
        try:
            await reader.read_flow(stage, moment)
        except NorthflankError as error:
            is_first = not stage.error
            if is_first or not stage.has_flow or isinstance(error, NotFound):
                raise
            if self.connection.is_account_wide(error):
                raise
            message = _("Release flow: %(error)s") % {"error": error}
            return _error_fields(stage, error, moment) | {"error_message": message}
        return {}

    async def _read_flow(self, stage: Stage, plan: ReadPlan, reader: StageReader) -> None:
        """Read the release flow of a stage that had a first read of its runs, and release it."""
        moment = now()
        try:
            await reader.read_flow(stage, moment)
            if stage.has_flow and stage.list_order != ListOrder.NEWEST:
                await reader.read_next_pages(stage)
        except NorthflankError as error:
            if self.connection.is_account_wide(error):
                await run_in_db_thread(leases.requeue, stage.pk, now())
                return
            await run_in_db_thread(_record_stage_failure, stage, error, moment, plan)
        else:
            await run_in_db_thread(leases.release_after_flow_read, stage)
        finally:
            self._leased_stages.discard(stage.pk)

    async def _read_run(self, run: Run) -> None:
        if not run.in_flight or run.status == "aborting":
            self._count_other_reads(1)
        if await read_run(self.connection, run) is not None:
            await run_in_db_thread(leases.release_run, run, now(), self._plan)


async def _log_errors(work: Awaitable[None]) -> None:
    # A defect in one read must not stop the others, and must be logged.
    try:
        await work
    except NorthflankError:
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
    baselines.schedule_next_detail(moment, schedule.baseline_interval(rate))
    plan = read_plan.make_plan(
        rate, moment, starts, other_reads=other_reads, can_read=_can_read(read_budget)
    )
    catalog.refresh_now(moment, plan.lists_interval)
    return plan


def _can_read(read_budget: ReadBudget) -> bool:
    return read_budget.requests >= MAX_REQUESTS_PER_READ


def record_heartbeat(name: str, leased_stages: set[int], moment: datetime) -> None:
    """Store that a worker is alive, and renew its leases; delete the rows of dead workers."""
    if not Worker.objects.filter(name=name).update(heartbeat_at=moment):
        Worker.objects.create(name=name, heartbeat_at=moment, started_at=moment)
    Worker.objects.filter(heartbeat_at__lt=moment - WORKER_RETENTION).delete()
    leases.renew(leased_stages, moment)


def find_live_workers(name: str, moment: datetime) -> list[str]:
    """Return the names of the workers with a recent heartbeat, and `name`, in order."""
    heartbeats = Worker.objects.values_list("name", "heartbeat_at")
    live = {other for other, beat_at in heartbeats if freshness.is_alive(beat_at, moment)}
    return sorted(live | {name})


_NO_ERROR: dict[str, object] = {"error": "", "error_message": "", "error_since": None}


def _error_fields(stage: Stage, error: NorthflankError, moment: datetime) -> dict[str, object]:
    return {
        "error": error.cause,
        "error_message": str(error),
        "error_since": stage.error_since or moment,
    }


def _known_flow_error(stage: Stage) -> dict[str, object]:
    """Return the error fields of a stage whose runs can be read but not its flow, else none."""
    if not stage.error or stage.failures:
        return {}
    return {name: getattr(stage, name) for name in _NO_ERROR}


def _interval(stage: Stage) -> timedelta:
    """Return the time between two reads of a stage, as planned at the last."""
    if stage.fresh_until is None or stage.synced_at is None:
        return timedelta()
    return stage.fresh_until - stage.synced_at


def _is_flow_due(stage: Stage, moment: datetime) -> bool:
    if _known_flow_error(stage) and stage.has_flow and stage.error_since is not None:
        return schedule.is_flow_retry_due(stage.error_since, stage.synced_at, moment)
    return schedule.is_flow_due(stage.has_flow, stage.flow_synced_at, _interval(stage), moment)


def _record_stage_read(
    stage: Stage,
    moment: datetime,
    plan: ReadPlan,
    flow_error: dict[str, object],
    *,
    is_first: bool = False,
    **updates: Any,
) -> None:
    """Record a read of a stage's runs.

    `flow_error`: the error fields if its release flow cannot be read, else empty. `is_first`: one
    of many first reads.
    """
    if stage.error and not flow_error:
        log.info("stage.recovered", stage=str(stage), after=stage.error)
    fields: dict[str, Any] = {"synced_at": moment, "failures": 0} | (flow_error or _NO_ERROR)
    leases.release_stage(stage, now(), plan, is_first=is_first, **fields | updates)


def _record_stage_failure(
    stage: Stage, error: NorthflankError, moment: datetime, plan: ReadPlan
) -> None:
    fields: dict[str, Any] = _error_fields(stage, error, moment)
    if not stage.failures:  # until now its runs could be read, if perhaps not its flow
        log.warning("stage.read_failed", stage=str(stage), cause=error.cause, message=str(error))
        fields["error_since"] = moment
    leases.release_stage(
        stage,
        now(),
        plan,
        **fields,
        failures=stage.failures + 1,
        # A stage that is not found may have lost its flow: check that first next time.
        flow_synced_at=None if error.cause == "not_found" else stage.flow_synced_at,
    )


def _record_catalog_read(
    catalog_sync: CatalogSync, whole_list: Page[Any], moment: datetime, interval: timedelta
) -> None:
    if catalog_sync.error:
        log.info(
            "catalog.recovered",
            list=_catalog_list_name(catalog_sync),
            after=catalog_sync.error,
        )
    omitted_entries.record_catalog_list(
        catalog_sync, whole_list, name=_catalog_list_name(catalog_sync)
    )
    update_row(
        CatalogSync,
        catalog_sync.pk,
        synced_at=moment,
        next_sync_at=moment + interval,
        error="",
        error_message="",
        error_since=None,
        failures=0,
    )


def _record_catalog_failure(
    catalog_sync: CatalogSync, error: NorthflankError, moment: datetime
) -> None:
    if not catalog_sync.error:
        # Without the list of projects nothing can be read: say what to check.
        hint = {} if catalog_sync.project else access_hint.log_fields(error.cause)
        log.warning(
            "catalog.read_failed",
            list=_catalog_list_name(catalog_sync),
            cause=error.cause,
            message=str(error),
            **hint,
        )
    update_row(
        CatalogSync,
        catalog_sync.pk,
        error=error.cause,
        error_message=str(error),
        error_since=catalog_sync.error_since or moment,
        failures=catalog_sync.failures + 1,
        next_sync_at=moment + schedule.failure_backoff(catalog_sync.failures + 1, error.cause),
    )


def _retry_catalog_read(catalog_sync: CatalogSync, moment: datetime) -> None:
    update_row(CatalogSync, catalog_sync.pk, next_sync_at=moment)


def _catalog_list_name(catalog_sync: CatalogSync) -> str:
    return catalog_sync.project.slug if catalog_sync.project else "all projects"
