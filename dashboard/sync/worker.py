"""The loop that reads Northflank: claims what is due, has it read, and says when it is due next.

Any number of these may run against one PostgreSQL database. Trouble of a stage is backed off by its
cause, and logged once when it begins and once when it ends. While nothing at all is answered (see
upstream/connection.py) one stage is tried now and then; the others keep their turn.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta

import structlog
from django.db import DatabaseError, InterfaceError
from django.db.models import F

from dashboard.db import health as db_health
from dashboard.db.threads import in_database, now, set_clock
from dashboard.models import CatalogueSweep, QuestionCounter, Run, Stage, Worker
from dashboard.models.catalog import ListOrder
from dashboard.northflank import (
    NorthflankError,
    drain,
)
from dashboard.sync import baselines, catalogue, clock_correction, leases, schedule, webhook_status
from dashboard.sync.schedule import Gap, Plan
from dashboard.sync.stage_reader import A_FIRST_READING, A_READING, Reader, Taken, read_run
from dashboard.upstream import budget_store
from dashboard.upstream.connection import Connection
from dashboard.upstream.rate_budget import Allowance

log = structlog.get_logger(__name__)

TICK = 0.5  # seconds between two looks at what is due
PLAN_EVERY = 5.0  # seconds a plan is kept
BEAT_EVERY = 5.0  # seconds between two signs of life; claims are renewed with each
AT_ONCE = 4  # questions under way at the same time
# First reads have hands of their own: at first so many, one more with each quick answer, half of
# them after each failure.
FIRST_AT_ONCE, MOST_AT_ONCE = 4, 12
QUICK = 2.0  # seconds; where answers take longer, more questions would only wait behind each other
WORKER_KEPT = timedelta(hours=1)  # how long the row of a worker that was killed can be seen

Chore = Callable[[Connection], Awaitable[None]]


class SyncWorker:
    """One worker; `run` until told to stop.

    `chores` are started on each tick, beside the reading (see aborting); each waits for its last.
    Signs of life are `beat_every` seconds apart; before each, `measure` puts the clock right.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        chores: Sequence[Chore] = (),
        beat_every: float = BEAT_EVERY,
        measure: Callable[[], None] = set_clock,
    ) -> None:
        self.connection = connection
        self.chores = chores
        self.beat_every = beat_every
        self.measure = measure
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self.started = 0  # readings, so far
        self._plan: Plan | None = None
        self._planned_at = 0.0
        self._beat_at = 0.0
        self.under_way: set[asyncio.Task[None]] = set()  # readings
        self._first: set[asyncio.Task[None]] = set()  # first reads, of these
        self._first_at_once = FIRST_AT_ONCE
        self._reading_first = False
        self._ended = asyncio.Event()  # a first read has
        self._at_chores: dict[Chore, asyncio.Task[None]] = {}
        self._claimed: set[int] = set()  # stages
        self._failing = False  # the last tick has

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; what is under way then is let go."""
        ticking = asyncio.create_task(self._tick_on())
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({ticking, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if ticking.done():
                ticking.result()  # raises: it ends by a defect only
        finally:
            under_way = {ticking, stopping} | self._tasks()
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)
            # A row that can't be removed is taken for that of a worker that was killed.
            with contextlib.suppress(DatabaseError, InterfaceError):
                await in_database(Worker.objects.filter(name=self.name).delete)

    async def _tick_on(self) -> None:
        begun = told = False
        while True:
            try:
                if not begun:
                    await in_database(self.measure)
                    await in_database(catalogue.begin, now())
                    begun = True
                await self.tick()
            except (DatabaseError, InterfaceError) as error:
                # One that is away is told by database_health; this loop tries on.
                if not told and not db_health.is_outage(error):
                    log.exception("sync.round_failed")
                    told = True
                self._failing = True
            else:
                if told:
                    log.info("sync.recovered")
                self._failing = told = False
            self._ended.clear()
            away = db_health.away_since() is not None
            # While first reads are under way, the next begins where one ends.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(db_health.RETRY if away else TICK):
                    await self._ended.wait()

    async def tick(self) -> None:
        """Start reading whatever is due now, as far as the budget and our hands reach."""
        loop_time = asyncio.get_running_loop().time()
        if loop_time - self._beat_at >= self.beat_every or not self._beat_at:
            self._beat_at = loop_time
            await in_database(self.measure)
            await in_database(clock_correction.rebook, now())
            await in_database(_beat, self.name, set(self._claimed), now())
        if not self._failing:
            self._start_chores()
        moment = now()
        spend = await in_database(budget_store.allowance, moment)
        if spend.refused_until is not None:
            return
        if spend.probing or self.connection.trouble:
            await self._see_whether_it_answers(spend, moment)
            return
        # An aborting run is read from the aborts' reserve, whatever is left for the rest.
        if not spend.may_follow:
            return
        # What is under way has not been counted yet: hands rest before the reserve is touched.
        left = spend.requests - A_FIRST_READING * len(self._first)
        hands = min(AT_ONCE, left // A_READING) if spend.may_read else 0
        for run in await in_database(
            leases.runs, moment, AT_ONCE - self._busy, aborting_only=hands <= self._busy
        ):
            self.start(self._read_run(run))
        if self._plan is None or loop_time - self._planned_at >= PLAN_EVERY:
            self._plan = await in_database(_make_plan, spend, moment)
            self._planned_at = loop_time
        waiting = await self._read_first(spend, moment, self._plan) if self._plan.unread else False
        if hands > self._busy:
            await self._read_due(spend, moment, self._plan, hands, waiting=waiting)

    @property
    def _busy(self) -> int:
        """How many hands are at work, those of first reads left out."""
        return len(self.under_way) - len(self._first)

    async def _read_first(self, spend: Allowance, moment: datetime, plan: Plan) -> bool:
        """Start reading what nobody knows of, ahead of the even rate; say whether more waits."""
        left = min(spend.first_reads, spend.requests - A_READING * self._busy)
        most = min(left // A_FIRST_READING, self._first_at_once) - len(self._first)
        if most <= 0:
            return bool(self._first)
        for sweep in await in_database(catalogue.claim_first, moment, most):
            self._start_first(self._sweep(sweep, plan))
            most -= 1
        for stage in await in_database(leases.first, moment, most):
            self._claimed.add(stage.pk)
            self._start_first(self._read_newest(stage, plan))
            most -= 1
        if self._reading_first and not self._first:
            self._planned_at = -PLAN_EVERY  # there is no more of it, or all that is left rests
        self._reading_first = bool(self._first)
        return self._reading_first

    async def _read_due(
        self, spend: Allowance, moment: datetime, plan: Plan, hands: int, *, waiting: bool
    ) -> None:
        """Start reading what is due; `waiting`: only what is followed, since first reads wait."""
        discover = spend.may_discover and not waiting
        sweep = await in_database(catalogue.claim_due, moment) if discover else None
        if sweep is not None:
            self.start(self._sweep(sweep, plan))
        unread = discover and plan.unread
        for stage in await in_database(
            leases.stages,
            moment,
            plan,
            hands - self._busy,
            followed_only=unread or not discover,
            runs_only=waiting,
        ):
            self._read(stage, plan)
        if unread and hands > self._busy:
            firsts = await in_database(leases.first, moment, hands - self._busy)
            for stage in firsts:
                self._claimed.add(stage.pk)
                self.start(self._read_newest(stage, plan))
            for stage in await in_database(leases.stages, moment, plan, hands - self._busy):
                self._read(stage, plan)

    def _start_chores(self) -> None:
        for chore in self.chores:
            if chore not in self._at_chores or self._at_chores[chore].done():
                self._at_chores[chore] = asyncio.ensure_future(_logged(chore(self.connection)))

    async def _see_whether_it_answers(self, spend: Allowance, moment: datetime) -> None:
        """Read whatever waits, one thing at a time; after a 429, one of all processes."""
        if spend.requests <= 0 or self.under_way or not self.connection.may_ask():
            return
        if spend.probing and not await in_database(budget_store.take_probe, moment):
            return
        plan = await in_database(_make_plan, spend, moment)
        for stage in await in_database(leases.stages, moment, plan, 1):
            self._read(stage, plan)
            return
        sweep = await in_database(catalogue.claim_due, moment)
        self.start(self._sweep(sweep, plan) if sweep is not None else self._ask_who())

    async def _ask_who(self) -> None:
        await self.connection.ask(lambda nf: nf.auth())

    async def idle(self) -> None:
        """Return once nothing is under way."""
        # What has ended is under way until its callbacks are called, in the loop's next turn; to
        # gather it once more takes none.
        while pending := [task for task in self._tasks() if not task.done()]:
            await asyncio.wait(pending)
        await asyncio.sleep(0)

    def _tasks(self) -> set[asyncio.Task[None]]:
        return {*self.under_way, *self._at_chores.values()}

    def start(self, work: Awaitable[None]) -> asyncio.Task[None]:
        """Do a piece of reading beside what is under way; what it raises is logged."""
        self.started += 1
        task = asyncio.ensure_future(_logged(work))
        self.under_way.add(task)
        task.add_done_callback(self.under_way.discard)
        return task

    def _start_first(self, work: Awaitable[None]) -> None:
        task = self.start(work)
        self._first.add(task)
        task.add_done_callback(self._first_ended)

    def _first_ended(self, task: asyncio.Task[None]) -> None:
        self._first.discard(task)
        self._ended.set()

    @property
    def _reader(self) -> Reader:
        """What the task that asks reads by."""
        return Reader(self.connection, ahead=asyncio.current_task() in self._first)

    def _read(self, stage: Stage, plan: Plan) -> None:
        self._claimed.add(stage.pk)
        self.start(self.read_stage(stage, plan))

    async def _sweep(self, sweep: CatalogueSweep, plan: Plan) -> None:
        moment = now()
        project = sweep.project
        number = await in_database(QuestionCounter.take)
        try:
            if project is None:
                projects = await self._reader.ask(
                    lambda nf: drain(lambda cursor: nf.projects(cursor=cursor)), asked_seq=number
                )
                again = await in_database(
                    catalogue.projects, projects, now=moment, asked_seq=number
                )
                read = Taken.of(projects)
            else:
                slug = project.slug
                pipelines = await self._reader.ask(
                    lambda nf: drain(lambda cursor: nf.pipelines(slug, cursor=cursor)),
                    asked_seq=number,
                )
                again = await in_database(
                    catalogue.pipelines, project, pipelines, now=moment, asked_seq=number
                )
                read = Taken.of(pipelines)
        except NorthflankError as error:
            if self.connection.concerns_all(error):
                await in_database(_sweep_waits, sweep, moment)
            else:
                await in_database(_sweep_failed, sweep, error, moment)
        else:
            every = min(plan.catalogue, catalogue.APART) if again else plan.catalogue
            await in_database(_sweep_done, sweep, read, moment, every)
            if sweep.swept_at is None:
                self._planned_at = -PLAN_EVERY  # there are stages that nobody has read

    async def _read_newest(self, stage: Stage, plan: Plan) -> None:
        """Read what nobody knows of a stage: its newest runs, or what is in flight beside them."""
        moment, began = now(), asyncio.get_running_loop().time()
        taken = Taken()
        try:
            if schedule.gap(stage, moment) is Gap.OLDER:
                await self._reader.page(stage, taken, None, concluded=False)
                changes: dict[str, object] = {"in_flight_unread": False}
            else:
                changes = await self._reader.read_newest(stage, taken)
        except NorthflankError as error:
            self._first_at_once = max(self._first_at_once // 2, 1)
            if self.connection.concerns_all(error):
                await in_database(leases.give_back, stage.pk, now())
                return
            await in_database(_stage_failed, stage, error, moment)
        else:
            if asyncio.get_running_loop().time() - began < QUICK:
                self._first_at_once = min(self._first_at_once + 1, MOST_AT_ONCE)
            await in_database(_stage_done, stage, taken, moment, **changes)
        finally:
            self._claimed.discard(stage.pk)
        await in_database(leases.release, stage, now(), plan)

    async def read_stage(self, stage: Stage, plan: Plan) -> None:
        """Read a claimed stage as far as the plan wants, keep what came of it, and give it back."""
        moment = now()
        taken = Taken()
        promised = stage.promised_at if not stage.failures else None
        if stage.flow_seen_at is None and promised is not None and promised > moment:
            await self._define(stage, plan)
            return
        try:
            is_lost = schedule.is_lost(stage.has_flow, stage.missing_at, moment)
            if is_lost or plan.flow_is_due(stage.has_flow, stage.flow_seen_at, moment):
                await self._reader.read_flow(stage, moment)
            if stage.has_flow:
                past = plan.past_is_due(stage.synced_at, moment)
                await self._reader.read_runs(stage, taken, past=past)
        except NorthflankError as error:
            if self.connection.concerns_all(error):
                await in_database(leases.give_back, stage.pk, now())
                return
            await in_database(_stage_failed, stage, error, moment)
        else:
            await in_database(_stage_done, stage, taken, moment, in_flight_unread=False)
        finally:
            self._claimed.discard(stage.pk)
        await in_database(leases.release, stage, now(), plan)

    async def _define(self, stage: Stage, plan: Plan) -> None:
        """Read the definition of a stage's release flow, where its runs were just read."""
        moment = now()
        try:
            await self._reader.read_flow(stage, moment)
            if stage.has_flow and stage.order != ListOrder.NEWEST:
                await self._reader.walk(stage, Taken())  # the next reading counts what is left out
        except NorthflankError as error:
            if self.connection.concerns_all(error):
                await in_database(leases.give_back, stage.pk, now())
                return
            await in_database(_stage_failed, stage, error, moment)
            await in_database(leases.release, stage, now(), plan)
        else:
            await in_database(leases.release_defined, stage)
        finally:
            self._claimed.discard(stage.pk)

    async def _read_run(self, run: Run) -> None:
        if await read_run(self.connection, run) is not None:
            await in_database(leases.release_run, run, now(), self._plan)


async def _logged(work: Awaitable[None]) -> None:
    # A defect in reading one stage must neither stop the others nor pass unseen.
    try:
        await work
    except NorthflankError:
        log.debug("read.failed", exc_info=True)  # where it was met, it was kept and told
    except Exception as error:
        if not db_health.is_outage(error):  # told where it was met, too
            log.exception("read.defect")


def _make_plan(spend: Allowance, moment: datetime) -> Plan:
    plan = leases.plan(
        spend.per_second,
        moment,
        push_alive=webhook_status.alive(moment),
        learning=baselines.book(moment, schedule.learning_interval(spend.per_second)),
        held_up=timedelta(seconds=spend.seconds_held_up),
    )
    catalogue.hurry(moment, plan.catalogue)
    return plan


def _beat(name: str, claimed: set[int], moment: datetime) -> None:
    Worker.objects.update_or_create(
        name=name,
        defaults={"beat_at": moment},
        create_defaults={"beat_at": moment, "started_at": moment},
    )
    Worker.objects.filter(beat_at__lt=moment - WORKER_KEPT).delete()
    leases.renew(claimed, moment)


def _stage_done(stage: Stage, taken: Taken, moment: datetime, **known: object) -> None:
    if stage.error:
        log.info("stage.recovered", stage=str(stage), after=stage.error)
    taken.tell(stage, of=str(stage))
    Stage.objects.filter(pk=stage.pk).update(
        **{
            "synced_at": moment,
            "error": "",
            "error_message": "",
            "error_since": None,
            "failures": 0,
            "left_out": taken.left_out,
            "surplus": taken.surplus,
        }
        | known
    )


def _stage_failed(stage: Stage, error: NorthflankError, moment: datetime) -> None:
    if not stage.error:
        log.warning("stage.trouble", stage=str(stage), cause=error.cause, message=str(error))
    Stage.objects.filter(pk=stage.pk).update(
        error=error.cause,
        error_message=str(error),
        error_since=stage.error_since or moment,
        failures=F("failures") + 1,
        # What is not found may have lost its flow: the next visit asks for that first.
        flow_seen_at=None if error.cause == "not_found" else stage.flow_seen_at,
    )


def _sweep_done(sweep: CatalogueSweep, taken: Taken, moment: datetime, every: timedelta) -> None:
    if sweep.error:
        log.info("catalogue.recovered", of=_what(sweep), after=sweep.error)
    taken.tell(sweep, of=_what(sweep))
    CatalogueSweep.objects.filter(pk=sweep.pk).update(
        swept_at=moment,
        next_at=moment + every,
        error="",
        error_message="",
        error_since=None,
        failures=0,
        left_out=taken.left_out,
        surplus=taken.surplus,
    )


def _sweep_failed(sweep: CatalogueSweep, error: NorthflankError, moment: datetime) -> None:
    if not sweep.error:
        log.warning("catalogue.trouble", of=_what(sweep), cause=error.cause, message=str(error))
    CatalogueSweep.objects.filter(pk=sweep.pk).update(
        error=error.cause,
        error_message=str(error),
        error_since=sweep.error_since or moment,
        failures=F("failures") + 1,
        next_at=moment + schedule.after_failure(sweep.failures + 1, error.cause),
    )


def _sweep_waits(sweep: CatalogueSweep, moment: datetime) -> None:
    CatalogueSweep.objects.filter(pk=sweep.pk).update(next_at=moment)


def _what(sweep: CatalogueSweep) -> str:
    return sweep.project.slug if sweep.project else "all projects"
