"""The loop that reads Northflank: claims what is due, asks, mirrors, and says when it is due next.

Any number of these may run against one PostgreSQL database. Trouble of a stage is backed off by its
cause, and logged once when it begins and once when it ends. While nothing at all is answered (see
upstream.py) one stage is tried now and then; the others keep their turn.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self, TypedDict

import structlog
from django.db import DatabaseError, InterfaceError
from django.db.models import F

from dashboard import budget, database_health, push
from dashboard.allowance import Allowance
from dashboard.database import in_database, now, set_clock
from dashboard.models import CatalogueSweep, QuestionCounter, Run, Stage, Worker
from dashboard.models.catalog import ListOrder, ListReading
from dashboard.northflank import (
    NorthflankClient,
    NorthflankError,
    NotFound,
    Page,
    ReleaseFlow,
    RunDetail,
    UnexpectedAnswer,
    drain,
    find_release_flow,
)
from dashboard.northflank import Run as ApiRun
from dashboard.sync import catalogue, claims, learning, mirror, rebooking, schedule
from dashboard.sync.schedule import Gap, Plan
from dashboard.upstream import Connection

log = structlog.get_logger(__name__)

TICK = 0.5  # seconds between two looks at what is due
PLAN_EVERY = 5.0  # seconds a plan is kept
BEAT_EVERY = 5.0  # seconds between two signs of life; claims are renewed with each
AT_ONCE = 4  # questions under way at the same time
# First reads have hands of their own: at first so many, one more with each quick answer, half of
# them after each failure.
FIRST_AT_ONCE, MOST_AT_ONCE = 4, 12
QUICK = 2.0  # seconds; where answers take longer, more questions would only wait behind each other
PER_PAGE = 100  # the most Northflank gives
HISTORY_PAGES = 20  # how far back a stage's past is read
WALK = 2  # pages of a list in any other order that are read at one visit
WORKER_KEPT = timedelta(hours=1)  # how long the row of a worker that was killed can be seen
A_READING = 6  # the most questions one visit asks: the flow twice, two lists, the walk
A_FIRST_READING = 3  # the same of a first read: the newest by two spellings, what is in flight

Chore = Callable[[Connection], Awaitable[None]]


@dataclass(slots=True)
class Taken:
    """What was not taken of the lists of one reading."""

    left_out: int = 0
    surplus: int = 0

    @classmethod
    def of(cls, page: Page[Any]) -> Self:
        return cls(page.left_out, page.surplus)

    def add(self, page: Page[Any]) -> None:
        self.left_out += page.left_out
        self.surplus += page.surplus

    def tell(self, before: ListReading, *, of: str) -> None:
        """Log the begin and the end of such a defect."""
        if before.is_partial == bool(self.left_out or self.surplus):
            return
        if before.is_partial:
            log.info("list.whole_again", of=of)
        else:
            log.warning("list.in_part", left_out=self.left_out, surplus=self.surplus, of=of)


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
                if not told and not database_health.is_outage(error):
                    log.exception("sync.round_failed")
                    told = True
                self._failing = True
            else:
                if told:
                    log.info("sync.recovered")
                self._failing = told = False
            self._ended.clear()
            away = database_health.away_since() is not None
            # While first reads are under way, the next begins where one ends.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(database_health.RETRY if away else TICK):
                    await self._ended.wait()

    async def tick(self) -> None:
        """Start reading whatever is due now, as far as the budget and our hands reach."""
        loop_time = asyncio.get_running_loop().time()
        if loop_time - self._beat_at >= self.beat_every or not self._beat_at:
            self._beat_at = loop_time
            await in_database(self.measure)
            await in_database(rebooking.rebook, now())
            await in_database(_beat, self.name, set(self._claimed), now())
        if not self._failing:
            self._start_chores()
        moment = now()
        spend = await in_database(budget.allowance, moment)
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
            claims.runs, moment, AT_ONCE - self._busy, aborting_only=hands <= self._busy
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
        for stage in await in_database(claims.first, moment, most):
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
            claims.stages,
            moment,
            plan,
            hands - self._busy,
            followed_only=unread or not discover,
            runs_only=waiting,
        ):
            self._read(stage, plan)
        if unread and hands > self._busy:
            firsts = await in_database(claims.first, moment, hands - self._busy)
            for stage in firsts:
                self._claimed.add(stage.pk)
                self.start(self._read_newest(stage, plan))
            for stage in await in_database(claims.stages, moment, plan, hands - self._busy):
                self._read(stage, plan)

    def _start_chores(self) -> None:
        for chore in self.chores:
            if chore not in self._at_chores or self._at_chores[chore].done():
                self._at_chores[chore] = asyncio.ensure_future(_logged(chore(self.connection)))

    async def _see_whether_it_answers(self, spend: Allowance, moment: datetime) -> None:
        """Read whatever waits, one thing at a time; after a 429, one of all processes."""
        if spend.requests <= 0 or self.under_way or not self.connection.may_ask():
            return
        if spend.probing and not await in_database(budget.take_probe, moment):
            return
        plan = await in_database(_make_plan, spend, moment)
        for stage in await in_database(claims.stages, moment, plan, 1):
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

    async def _ask[T](
        self,
        question: Callable[[NorthflankClient], Awaitable[T]],
        *,
        asked_seq: int | None = None,
    ) -> T:
        """Put a question; one of a first read may be ahead of the even rate."""
        try:
            return await self.connection.ask(question, asked_seq=asked_seq)
        finally:
            if asyncio.current_task() in self._first:
                await in_database(budget.set_aside, 1)

    def _read(self, stage: Stage, plan: Plan) -> None:
        self._claimed.add(stage.pk)
        self.start(self._read_stage(stage, plan))

    async def _sweep(self, sweep: CatalogueSweep, plan: Plan) -> None:
        moment = now()
        project = sweep.project
        number = await in_database(QuestionCounter.take)
        try:
            if project is None:
                projects = await self._ask(
                    lambda nf: drain(lambda cursor: nf.projects(cursor=cursor)), asked_seq=number
                )
                again = await in_database(
                    catalogue.projects, projects, now=moment, asked_seq=number
                )
                read = Taken.of(projects)
            else:
                slug = project.slug
                pipelines = await self._ask(
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
                await self._page(stage, taken, None, concluded=False)
                changes: dict[str, object] = {"in_flight_unread": False}
            else:
                changes = await self._ask_for_newest(stage, taken)
        except NorthflankError as error:
            self._first_at_once = max(self._first_at_once // 2, 1)
            if self.connection.concerns_all(error):
                await in_database(claims.give_back, stage.pk, now())
                return
            await in_database(_stage_failed, stage, error, moment)
        else:
            if asyncio.get_running_loop().time() - began < QUICK:
                self._first_at_once = min(self._first_at_once + 1, MOST_AT_ONCE)
            await in_database(_stage_done, stage, taken, moment, **changes)
        finally:
            self._claimed.discard(stage.pk)
        await in_database(claims.release, stage, now(), plan)

    async def _ask_for_newest(self, stage: Stage, taken: Taken) -> dict[str, object]:
        """Read a stage's newest runs, and return what is known of it by that."""
        page = await self._newest(stage, taken)
        if page is None:
            return {"has_flow": False, "flow_seen_at": now(), "in_flight_unread": False}
        known: dict[str, object] = {"path": stage.path}
        if page.items:  # an empty list may be that of a stage without a release flow
            known["has_flow"] = True
        if not page.has_next:
            return known | {"in_flight_unread": False, "history_page": None}
        order = _order_of(page.items)
        if order != ListOrder.NEWEST:
            await self._page(stage, taken, None, concluded=False)
            if stage.order != order:
                known |= {"order": order, "history_page": 1}
            return known | {"in_flight_unread": False}
        before = stage.synced_at
        reaches_back = before is not None and any(
            run.created_at is not None and run.created_at < before for run in page.items
        )
        return known | {"in_flight_unread": not reaches_back}

    async def _newest(self, stage: Stage, taken: Taken) -> Page[ApiRun] | None:
        """Return the first page of a stage's runs; None where it has no release flow."""
        if stage.path:
            return await self._page(stage, taken, 1)
        spellings, certain = await in_database(_spellings, stage.name)
        for spelling in spellings[:1] if certain else spellings:
            stage.path = spelling
            try:
                return await self._page(stage, taken, 1)
            except NotFound:
                continue
        stage.path = ""
        return None

    async def _read_stage(self, stage: Stage, plan: Plan) -> None:
        moment = now()
        taken = Taken()
        promised = stage.promised_at if not stage.failures else None
        if stage.flow_seen_at is None and promised is not None and promised > moment:
            await self._define(stage, plan)
            return
        try:
            is_lost = schedule.is_lost(stage.has_flow, stage.missing_at, moment)
            if is_lost or plan.flow_is_due(stage.has_flow, stage.flow_seen_at, moment):
                await self._read_flow(stage, moment)
            if stage.has_flow:
                past = plan.past_is_due(stage.synced_at, moment)
                await self._read_runs(stage, taken, past=past)
        except NorthflankError as error:
            if self.connection.concerns_all(error):
                await in_database(claims.give_back, stage.pk, now())
                return
            await in_database(_stage_failed, stage, error, moment)
        else:
            await in_database(_stage_done, stage, taken, moment, in_flight_unread=False)
        finally:
            self._claimed.discard(stage.pk)
        await in_database(claims.release, stage, now(), plan)

    async def _define(self, stage: Stage, plan: Plan) -> None:
        """Read the definition of a stage's release flow, where its runs were just read."""
        moment = now()
        try:
            await self._read_flow(stage, moment)
            if stage.has_flow and stage.order != ListOrder.NEWEST:
                await self._walk(stage, Taken())  # the next reading counts what is left out
        except NorthflankError as error:
            if self.connection.concerns_all(error):
                await in_database(claims.give_back, stage.pk, now())
                return
            await in_database(_stage_failed, stage, error, moment)
            await in_database(claims.release, stage, now(), plan)
        else:
            await in_database(claims.release_defined, stage)
        finally:
            self._claimed.discard(stage.pk)

    async def _read_flow(self, stage: Stage, moment: datetime) -> None:
        found = await self._find_flow(stage)
        if found is None and stage.has_flow and await self._lists_runs(stage):
            # What it said of the flow was wrong, or it lists the runs of one that was deleted.
            await in_database(catalogue.flow_was_looked_for, stage.pk, moment)
            return
        if (
            found is None
            and stage.has_flow
            and not await in_database(catalogue.miss_flow, stage.pk, moment)
        ):
            raise NotFound("Northflank knows no release flow here. It is asked again in minutes.")
        await in_database(catalogue.release_flow, stage.pk, found, now=moment)
        stage.has_flow, stage.flow_seen_at = found is not None, moment
        stage.path = found[1] if found else stage.path

    async def _lists_runs(self, stage: Stage) -> bool:
        project, pipeline = stage.pipeline.project.slug, stage.pipeline.slug
        try:
            page = await self._ask(lambda nf: nf.runs(project, pipeline, stage.path, per_page=1))
        except NotFound:
            return False
        return bool(page.items)

    async def _find_flow(self, stage: Stage) -> tuple[ReleaseFlow, str] | None:
        project, pipeline = stage.pipeline.project.slug, stage.pipeline.slug
        capitalised = await in_database(_capitalised_works)
        found = await self._ask(
            lambda nf: find_release_flow(
                nf, project, pipeline, stage.name, prefer_capitalised=capitalised
            )
        )
        if found is None and stage.has_flow:
            # A right that was withdrawn may look the same; then the pipeline is not found either.
            await self._ask(lambda nf: nf.pipeline(project, pipeline))
        return found

    async def _read_runs(self, stage: Stage, taken: Taken, *, past: bool) -> None:
        if stage.order == ListOrder.NEWEST:
            first = await self._page(stage, taken, 1)
            order = _order_of(first.items) if first.has_next else ListOrder.NEWEST
            if order == ListOrder.NEWEST:
                if first.has_next and (stage.synced_at is None or stage.in_flight_unread):
                    # A run that hangs may stand far behind the newest hundred.
                    await self._page(stage, taken, None, concluded=False)
                if first.has_next and past:
                    await self._read_history(stage, taken)
                return
            stage.order = order
            await in_database(_keep_order, stage.pk, order)
        # The newest runs may be on any page: those in flight are asked for by themselves, and
        # the pages are walked, from where the last walk ended.
        await self._page(stage, taken, None, concluded=False)
        if past or stage.synced_at is None:
            await self._walk(stage, taken)

    async def _read_history(self, stage: Stage, taken: Taken) -> None:
        """Read one more page of the past, until all of it that we want is here."""
        if stage.history_page is None:
            return
        page = await self._page(stage, taken, stage.history_page)
        more = page.has_next and stage.history_page < HISTORY_PAGES
        await in_database(_keep_history, stage.pk, stage.history_page + 1 if more else None)

    async def _walk(self, stage: Stage, taken: Taken) -> None:
        number = stage.history_page or 1
        for _ in range(WALK):
            page = await self._page(stage, taken, number)
            if not page.has_next:
                break
            number += 1
        if stage.order == ListOrder.NONE and not page.has_next:
            number = 1  # round and round
        await in_database(_keep_history, stage.pk, number)

    async def _page(
        self, stage: Stage, taken: Taken, number: int | None, *, concluded: bool | None = None
    ) -> Page[ApiRun]:
        project, pipeline = stage.pipeline.project.slug, stage.pipeline.slug
        asked = await in_database(_number_question)
        page = await self._ask(
            lambda nf: nf.runs(
                project, pipeline, stage.path, page=number, concluded=concluded, per_page=PER_PAGE
            ),
            asked_seq=asked["asked_seq"],
        )
        taken.add(page)
        await in_database(mirror.runs, stage.pk, page.items, **asked)
        if number in {None, 1}:
            await in_database(mirror.missing_from, stage.pk, page.items, **asked)
        return page

    async def _read_run(self, run: Run) -> None:
        if await read_run(self.connection, run) is not None:
            await in_database(claims.release_run, run, now(), self._plan)


async def read_run(connection: Connection, run: Run) -> Run | None:
    """Read one mirrored run's detail, and return its row; None where Northflank knows it no more.

    Raises NorthflankError; the run is then due again after a rest.
    """
    asked = await in_database(_number_question)
    try:
        said = await _detail(connection, run, asked["asked_seq"])
    except NorthflankError as error:
        if connection.concerns_all(error):
            await in_database(mirror.wait, run.pk, now())
        else:
            await in_database(mirror.rest, run.pk, error, now())
        raise
    if said is None:
        await in_database(mirror.gone, run.pk, **asked)
        return None
    if said.run.id != run.run_id:
        other = UnexpectedAnswer("Northflank answered with another run.", http_status=200)
        await in_database(mirror.rest, run.pk, other, now())
        raise other
    return await in_database(mirror.detail, run.stage_id, said, **asked)


async def _detail(connection: Connection, run: Run, asked_seq: int) -> RunDetail | None:
    """Ask for a run; None where neither it nor its stage's list knows of it any more.

    Raises NorthflankError, also where the list can't be read: then the 404 may be of more than the
    run, or of all that is asked.
    """
    stage = run.stage
    place = stage.pipeline.project.slug, stage.pipeline.slug, stage.spelling
    try:
        return await connection.ask(lambda nf: nf.run(*place, run.run_id), asked_seq=asked_seq)
    except NotFound:
        if run.gone_at is not None or stage.has_flow is False:
            return None
    going = None if run.concluded else False
    page = await connection.ask(
        lambda nf: nf.runs(*place, page=1, concluded=going, per_page=PER_PAGE),
        asked_seq=asked_seq,
    )
    if any(listed.id == run.run_id for listed in page.items):
        raise UnexpectedAnswer(
            "Northflank lists this run, and answers that there is no such run.", http_status=404
        )
    return None


class _Asked(TypedDict):
    """When a question is put, and its number."""

    asked_at: datetime
    asked_seq: int


def _number_question() -> _Asked:
    return {"asked_at": now(), "asked_seq": QuestionCounter.take()}


def _order_of(runs: Sequence[ApiRun]) -> ListOrder:
    times = [run.created_at for run in runs if run.created_at is not None]
    if times == sorted(times, reverse=True):
        return ListOrder.NEWEST
    return ListOrder.OLDEST if times == sorted(times) else ListOrder.NONE


async def _logged(work: Awaitable[None]) -> None:
    # A defect in reading one stage must neither stop the others nor pass unseen.
    try:
        await work
    except NorthflankError:
        log.debug("read.failed", exc_info=True)  # where it was met, it was kept and told
    except Exception as error:
        if not database_health.is_outage(error):  # told where it was met, too
            log.exception("read.defect")


def _make_plan(spend: Allowance, moment: datetime) -> Plan:
    plan = claims.plan(
        spend.per_second,
        moment,
        push_alive=push.alive(moment),
        learning=learning.book(moment, schedule.learning_interval(spend.per_second)),
        held_up=timedelta(seconds=spend.seconds_held_up),
    )
    catalogue.hurry(moment, plan.catalogue)
    return plan


def _capitalised_works() -> bool:
    path = Stage.objects.exclude(path="").values_list("path", flat=True).first()
    return bool(path and path[0].isupper())


def _spellings(name: str) -> tuple[list[str], bool]:
    """Return how a stage may be spelled, the likeliest first, and whether that is known to work."""
    path = Stage.objects.exclude(path="").values_list("path", flat=True).first()
    spellings = [name.lower(), name.capitalize()]
    if path and path[0].isupper():
        spellings.reverse()
    return spellings, bool(path)


def _keep_order(stage_pk: int, order: ListOrder) -> None:
    Stage.objects.filter(pk=stage_pk).update(order=order, history_page=1)


def _keep_history(stage_pk: int, number: int | None) -> None:
    Stage.objects.filter(pk=stage_pk).update(history_page=number)


def _beat(name: str, claimed: set[int], moment: datetime) -> None:
    Worker.objects.update_or_create(
        name=name,
        defaults={"beat_at": moment},
        create_defaults={"beat_at": moment, "started_at": moment},
    )
    Worker.objects.filter(beat_at__lt=moment - WORKER_KEPT).delete()
    claims.renew(claimed, moment)


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
