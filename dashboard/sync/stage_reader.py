"""Reading one stage or one run: what is asked of Northflank for it, in which order, and mirrored.

When that is done, by whom and how often is the worker's business (worker.py).
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self, TypedDict

import structlog

from dashboard.db.threads import in_database, now
from dashboard.models import QuestionCounter, Run, Stage
from dashboard.models.catalog import ListOrder, ListReading
from dashboard.northflank import (
    NorthflankClient,
    NorthflankError,
    NotFound,
    Page,
    ReleaseFlow,
    RunDetail,
    UnexpectedAnswer,
    find_release_flow,
)
from dashboard.northflank import Run as ApiRun
from dashboard.sync import catalogue, mirror, path_spelling
from dashboard.upstream import budget_store
from dashboard.upstream.connection import Connection

log = structlog.get_logger(__name__)

PER_PAGE = 100  # the most Northflank gives
HISTORY_PAGES = 20  # how far back a stage's past is read
WALK = 2  # pages of a list in any other order that are read at one visit
A_READING = 6  # the most questions one visit asks: the flow twice, two lists, the walk
A_FIRST_READING = 3  # the same of a first read: the newest by two spellings, what is in flight


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


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads stages over a connection. All of it raises NorthflankError.

    `ahead`: what it asks is a first read, and may be ahead of the even rate.
    """

    connection: Connection
    ahead: bool = False

    async def ask[T](
        self,
        question: Callable[[NorthflankClient], Awaitable[T]],
        *,
        asked_seq: int | None = None,
    ) -> T:
        """Put a question to Northflank; raises NorthflankError."""
        try:
            return await self.connection.ask(question, asked_seq=asked_seq)
        finally:
            if self.ahead:
                await in_database(budget_store.set_aside, 1)

    async def read_newest(self, stage: Stage, taken: Taken) -> dict[str, object]:
        """Read a stage's newest runs, and return what is known of it by that."""
        page = await self._first_page(stage, taken)
        if page is None:
            return {"has_flow": False, "flow_seen_at": now(), "in_flight_unread": False}
        known: dict[str, object] = {"path": stage.path}
        if page.items:  # an empty list may be that of a stage without a release flow
            known["has_flow"] = True
        if not page.has_next:
            return known | {"in_flight_unread": False, "history_page": None}
        order = _order_of(page.items)
        if order != ListOrder.NEWEST:
            await self.page(stage, taken, None, concluded=False)
            if stage.order != order:
                known |= {"order": order, "history_page": 1}
            return known | {"in_flight_unread": False}
        before = stage.synced_at
        reaches_back = before is not None and any(
            run.created_at is not None and run.created_at < before for run in page.items
        )
        return known | {"in_flight_unread": not reaches_back}

    async def _first_page(self, stage: Stage, taken: Taken) -> Page[ApiRun] | None:
        """Return the first page of a stage's runs; None where it has no release flow."""
        if stage.path:
            return await self.page(stage, taken, 1)
        worked = await in_database(path_spelling.worked)
        likely = path_spelling.likely(stage.name, worked)
        for path in likely if worked is None else likely[:1]:
            stage.path = path
            try:
                return await self.page(stage, taken, 1)
            except NotFound:
                continue
        stage.path = ""
        return None

    async def read_flow(self, stage: Stage, moment: datetime) -> None:
        """Read the definition of a stage's release flow, and keep it or that it has none."""
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
            page = await self.ask(lambda nf: nf.runs(project, pipeline, stage.path, per_page=1))
        except NotFound:
            return False
        return bool(page.items)

    async def _find_flow(self, stage: Stage) -> tuple[ReleaseFlow, str] | None:
        project, pipeline = stage.pipeline.project.slug, stage.pipeline.slug
        capitalised = path_spelling.is_capitalised(await in_database(path_spelling.worked))
        found = await self.ask(
            lambda nf: find_release_flow(
                nf, project, pipeline, stage.name, prefer_capitalised=capitalised
            )
        )
        if found is None and stage.has_flow:
            # A right that was withdrawn may look the same; then the pipeline is not found either.
            await self.ask(lambda nf: nf.pipeline(project, pipeline))
        return found

    async def read_runs(self, stage: Stage, taken: Taken, *, past: bool) -> None:
        """Read a stage's newest runs and those in flight; with `past`, a page or two before them.

        What the lists left out is counted in `taken`.
        """
        if stage.order == ListOrder.NEWEST:
            first = await self.page(stage, taken, 1)
            order = _order_of(first.items) if first.has_next else ListOrder.NEWEST
            if order == ListOrder.NEWEST:
                if first.has_next and (stage.synced_at is None or stage.in_flight_unread):
                    # A run that hangs may stand far behind the newest hundred.
                    await self.page(stage, taken, None, concluded=False)
                if first.has_next and past:
                    await self._read_history(stage, taken)
                return
            stage.order = order
            await in_database(_keep_order, stage.pk, order)
        # The newest runs may be on any page: those in flight are asked for by themselves, and
        # the pages are walked, from where the last walk ended.
        await self.page(stage, taken, None, concluded=False)
        if past or stage.synced_at is None:
            await self.walk(stage, taken)

    async def _read_history(self, stage: Stage, taken: Taken) -> None:
        """Read one more page of the past, until all of it that we want is here."""
        if stage.history_page is None:
            return
        page = await self.page(stage, taken, stage.history_page)
        more = page.has_next and stage.history_page < HISTORY_PAGES
        await in_database(_keep_history, stage.pk, stage.history_page + 1 if more else None)

    async def walk(self, stage: Stage, taken: Taken) -> None:
        """Read the next pages of a list in another order than the newest first."""
        number = stage.history_page or 1
        for _ in range(WALK):
            page = await self.page(stage, taken, number)
            if not page.has_next:
                break
            number += 1
        if stage.order == ListOrder.NONE and not page.has_next:
            number = 1  # round and round
        await in_database(_keep_history, stage.pk, number)

    async def page(
        self, stage: Stage, taken: Taken, number: int | None, *, concluded: bool | None = None
    ) -> Page[ApiRun]:
        """Read one page of a stage's runs, mirror it, and return it; None: without a number."""
        project, pipeline = stage.pipeline.project.slug, stage.pipeline.slug
        asked = await in_database(_number_question)
        page = await self.ask(
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


def _keep_order(stage_pk: int, order: ListOrder) -> None:
    Stage.objects.filter(pk=stage_pk).update(order=order, history_page=1)


def _keep_history(stage_pk: int, number: int | None) -> None:
    Stage.objects.filter(pk=stage_pk).update(history_page=number)
