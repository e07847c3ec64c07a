"""The loop that reads Northflank: claims what is due, asks, mirrors, and says when it is due next.

Any number of these may run against one PostgreSQL database. Upstream trouble is backed off per
stage and logged once when it begins and once when it ends.
"""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta

import structlog
from django.db import DatabaseError
from django.db.models import F
from django.utils import timezone

from dashboard import budget
from dashboard.database import in_database
from dashboard.models import CatalogueSweep, Run, Stage, Worker
from dashboard.models.catalog import ListOrder
from dashboard.northflank import (
    NorthflankError,
    NotFound,
    Page,
    ReleaseFlow,
    UnexpectedAnswer,
    drain,
    find_release_flow,
)
from dashboard.northflank import Run as ApiRun
from dashboard.sync import catalogue, claims, mirror, schedule
from dashboard.sync.schedule import Plan
from dashboard.upstream import ACCOUNT_WIDE, Connection

log = structlog.get_logger(__name__)

TICK = 0.5  # seconds between two looks at what is due
PLAN_EVERY = 5.0  # seconds a plan is kept
BEAT_EVERY = 10.0  # seconds between two signs of life
AT_ONCE = 4  # questions under way at the same time
PER_PAGE = 100  # the most Northflank gives
HISTORY_PAGES = 20  # how far back a stage's past is read
WALK = 2  # pages of a list in any other order that are read at one visit
A_READING = 6  # the most questions one visit asks: the flow twice, two lists, the walk

Chore = Callable[[Connection], Awaitable[None]]


class SyncWorker:
    """One worker; `run` until told to stop. `chores` are called on each tick (see aborting)."""

    def __init__(self, connection: Connection, *, chores: Sequence[Chore] = ()) -> None:
        self.connection = connection
        self.chores = chores
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self.started = 0  # readings, so far
        self._plan: Plan | None = None
        self._planned_at = 0.0
        self._beat_at = 0.0
        self._under_way: set[asyncio.Task[None]] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; what is under way then is let go."""
        await in_database(catalogue.begin, timezone.now())
        ticking = asyncio.create_task(self._tick_on())
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({ticking, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if ticking.done():
                ticking.result()  # raises: it ends by a defect only
        finally:
            under_way = {ticking, stopping, *self._under_way}
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)
            await in_database(Worker.objects.filter(name=self.name).delete)

    async def _tick_on(self) -> None:
        while True:
            try:
                await self.tick()
            except DatabaseError:
                # The database is away: `readyz` says so, and this loop tries on.
                log.exception("sync.database_away")
            await asyncio.sleep(TICK)

    async def tick(self) -> None:
        """Start reading whatever is due now, as far as the budget and our hands reach."""
        now = timezone.now()
        loop_time = asyncio.get_running_loop().time()
        if loop_time - self._beat_at >= BEAT_EVERY or not self._beat_at:
            self._beat_at = loop_time
            await in_database(_beat, self.name, now)
        for chore in self.chores:
            await chore(self.connection)
        free = AT_ONCE - len(self._under_way)
        if free <= 0:
            return
        spend = await in_database(budget.allowance, now)
        if spend.refused_until is not None:
            return
        # What is under way has not been counted yet: hands rest before the reserve is touched.
        hands = min(AT_ONCE, spend.requests // A_READING) if spend.may_read else 0
        spent = hands <= len(self._under_way)
        # An aborting run is read from the aborts' reserve, whatever is left for the rest.
        if not spend.may_follow:
            return
        for run in await in_database(claims.runs, now, free, aborting_only=spent):
            self._start(self._read_run(run))
        if hands <= len(self._under_way):
            return
        if self._plan is None or loop_time - self._planned_at >= PLAN_EVERY:
            self._plan = await in_database(claims.plan, spend.per_second, now)
            await in_database(catalogue.hurry, now, self._plan.catalogue)
            self._planned_at = loop_time
        discover = spend.may_discover
        sweep = await in_database(catalogue.claim_due, now) if discover else None
        if sweep is not None:
            self._start(self._sweep(sweep, self._plan))
        free = hands - len(self._under_way)
        for stage in await in_database(
            claims.stages, now, self._plan, max(free, 0), followed_only=not discover
        ):
            self._start(self._read_stage(stage, self._plan))

    async def idle(self) -> None:
        """Return once nothing is under way."""
        while self._under_way:
            await asyncio.gather(*self._under_way)

    def _start(self, work: Awaitable[None]) -> None:
        self.started += 1
        task = asyncio.ensure_future(_logged(work))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _sweep(self, sweep: CatalogueSweep, plan: Plan) -> None:
        now = timezone.now()
        project = sweep.project
        try:
            if project is None:
                projects = await self.connection.ask(
                    lambda nf: drain(lambda cursor: nf.projects(cursor=cursor))
                )
                await in_database(catalogue.projects, projects, now=now)
            else:
                slug = project.slug
                pipelines = await self.connection.ask(
                    lambda nf: drain(lambda cursor: nf.pipelines(slug, cursor=cursor))
                )
                await in_database(catalogue.pipelines, project, pipelines, now=now)
        except NorthflankError as error:
            await in_database(_sweep_failed, sweep, error, now)
        else:
            await in_database(_sweep_done, sweep, now, plan.catalogue)

    async def _read_stage(self, stage: Stage, plan: Plan) -> None:
        now = timezone.now()
        try:
            if plan.flow_is_due(stage.has_flow, stage.flow_seen_at, now):
                found = await self._find_flow(stage)
                await in_database(catalogue.release_flow, stage.pk, found, now=now)
                stage.has_flow, stage.flow_seen_at = found is not None, now
                stage.path = found[1] if found else stage.path
            if stage.has_flow:
                await self._read_runs(stage, past=plan.past_is_due(stage.synced_at, now))
        except NorthflankError as error:
            await in_database(_stage_failed, stage, error, now)
        else:
            await in_database(_stage_done, stage, now)
        await in_database(claims.release, stage, timezone.now(), plan)

    async def _find_flow(self, stage: Stage) -> tuple[ReleaseFlow, str] | None:
        project, pipeline = stage.pipeline.project.slug, stage.pipeline.slug
        capitalised = await in_database(_capitalised_works)
        return await self.connection.ask(
            lambda nf: find_release_flow(
                nf, project, pipeline, stage.name, prefer_capitalised=capitalised
            )
        )

    async def _read_runs(self, stage: Stage, *, past: bool) -> None:
        if stage.order == ListOrder.NEWEST:
            first = await self._page(stage, 1)
            order = _order_of(first.items) if first.has_next else ListOrder.NEWEST
            if order == ListOrder.NEWEST:
                if first.has_next and stage.synced_at is None:
                    # A run that hangs may stand far behind the newest hundred.
                    await self._page(stage, None, concluded=False)
                if first.has_next and past:
                    await self._read_history(stage)
                return
            stage.order = order
            await in_database(_keep_order, stage.pk, order)
        # The newest runs may be on any page: those in flight are asked for by themselves, and
        # the pages are walked, from where the last walk ended.
        await self._page(stage, None, concluded=False)
        if past or stage.synced_at is None:
            await self._walk(stage)

    async def _read_history(self, stage: Stage) -> None:
        """Read one more page of the past, until all of it that we want is here."""
        if stage.history_page is None:
            return
        page = await self._page(stage, stage.history_page)
        more = page.has_next and stage.history_page < HISTORY_PAGES
        await in_database(_keep_history, stage.pk, stage.history_page + 1 if more else None)

    async def _walk(self, stage: Stage) -> None:
        number = stage.history_page or 1
        for _ in range(WALK):
            page = await self._page(stage, number)
            if not page.has_next:
                break
            number += 1
        if stage.order == ListOrder.NONE and not page.has_next:
            number = 1  # round and round
        await in_database(_keep_history, stage.pk, number)

    async def _page(
        self, stage: Stage, number: int | None, *, concluded: bool | None = None
    ) -> Page[ApiRun]:
        project, pipeline = stage.pipeline.project.slug, stage.pipeline.slug
        asked_at = timezone.now()
        page = await self.connection.ask(
            lambda nf: nf.runs(
                project, pipeline, stage.path, page=number, concluded=concluded, per_page=PER_PAGE
            )
        )
        await in_database(mirror.runs, stage.pk, page.items, asked_at=asked_at)
        if number in {None, 1}:
            await in_database(mirror.missing_from, stage.pk, page.items, asked_at=asked_at)
        return page

    async def _read_run(self, run: Run) -> None:
        if await read_run(self.connection, run) is not None:
            await in_database(claims.release_run, run, timezone.now(), self._plan)


async def read_run(connection: Connection, run: Run) -> Run | None:
    """Read one mirrored run's detail, and return its row; None where Northflank knows it no more.

    Raises NorthflankError; the run is then due again after a rest.
    """
    stage = run.stage
    project, pipeline = stage.pipeline.project.slug, stage.pipeline.slug
    asked_at = timezone.now()
    try:
        said = await connection.ask(lambda nf: nf.run(project, pipeline, stage.path, run.run_id))
    except NotFound:
        await in_database(mirror.gone, run.pk, asked_at=asked_at)
        return None
    except NorthflankError:
        await in_database(mirror.rest, run.pk, asked_at=asked_at)
        raise
    if said.run.id != run.run_id:
        await in_database(mirror.rest, run.pk, asked_at=asked_at)
        raise UnexpectedAnswer("Northflank answered with another run.", http_status=200)
    return await in_database(mirror.detail, stage.pk, said, asked_at=asked_at)


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
        log.debug("read.failed", exc_info=True)  # its cause is kept in the row, and logged there
    except Exception:
        log.exception("read.defect")


def _capitalised_works() -> bool:
    path = Stage.objects.exclude(path="").values_list("path", flat=True).first()
    return bool(path and path[0].isupper())


def _keep_order(stage_pk: int, order: ListOrder) -> None:
    Stage.objects.filter(pk=stage_pk).update(order=order, history_page=1)


def _keep_history(stage_pk: int, number: int | None) -> None:
    Stage.objects.filter(pk=stage_pk).update(history_page=number)


def _beat(name: str, now: datetime) -> None:
    Worker.objects.update_or_create(
        name=name, defaults={"beat_at": now}, create_defaults={"beat_at": now, "started_at": now}
    )


def _stage_done(stage: Stage, now: datetime) -> None:
    if stage.error and stage.error not in ACCOUNT_WIDE:
        log.info("stage.recovered", stage=str(stage), after=stage.error)
    Stage.objects.filter(pk=stage.pk).update(
        synced_at=now, error="", error_message="", error_since=None, failures=0
    )


def _stage_failed(stage: Stage, error: NorthflankError, now: datetime) -> None:
    # Trouble of the whole account has its own line (see upstream.py), not one a stage.
    if stage.error != error.cause and error.cause not in ACCOUNT_WIDE:
        log.warning("stage.trouble", stage=str(stage), cause=error.cause, message=str(error))
    Stage.objects.filter(pk=stage.pk).update(
        error=error.cause,
        error_message=str(error),
        error_since=stage.error_since or now,
        failures=F("failures") + 1,
        # What is not found may have lost its flow: the next visit asks for that first.
        flow_seen_at=None if error.cause == "not_found" else stage.flow_seen_at,
    )


def _sweep_done(sweep: CatalogueSweep, now: datetime, every: timedelta) -> None:
    CatalogueSweep.objects.filter(pk=sweep.pk).update(
        swept_at=now, next_at=now + every, error="", error_message="", error_since=None, failures=0
    )


def _sweep_failed(sweep: CatalogueSweep, error: NorthflankError, now: datetime) -> None:
    if sweep.error != error.cause and error.cause not in ACCOUNT_WIDE:
        of = sweep.project.slug if sweep.project else "all projects"
        log.warning("catalogue.trouble", of=of, cause=error.cause, message=str(error))
    CatalogueSweep.objects.filter(pk=sweep.pk).update(
        error=error.cause,
        error_message=str(error),
        error_since=sweep.error_since or now,
        failures=F("failures") + 1,
        next_at=now + schedule.after_failure(sweep.failures + 1),
    )
