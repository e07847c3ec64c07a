"""Reading one stage or one run: what is asked of Northflank for it, in which order, and mirrored.

When that is done, by whom and how often is the worker's business (worker.py).
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self, TypedDict

import structlog

from dashboard.db.threads import now, run_in_db_thread
from dashboard.models import RequestCounter, Run, Stage
from dashboard.models.catalog import ListDefects, ListOrder
from dashboard.northflank import (
    NorthflankClient,
    NorthflankError,
    NotFound,
    Page,
    ReleaseFlow,
    RunDetail,
    UnexpectedResponse,
    find_release_flow,
)
from dashboard.northflank import Run as ApiRun
from dashboard.sync import catalog, mirror, path_spelling
from dashboard.upstream import budget_store
from dashboard.upstream.connection import Connection

log = structlog.get_logger(__name__)

PER_PAGE = 100  # the most Northflank gives
MAX_HISTORY_PAGES = 20  # how far back a stage's past is read
WALK_PAGES = 2  # pages of a list in any other order that are read at one visit
MAX_REQUESTS_PER_READ = 6  # the most questions one visit asks: the flow twice, two lists, the walk
MAX_REQUESTS_PER_FIRST_READ = (
    3  # the same of a first read: the newest by two spellings, what is in flight
)


@dataclass(slots=True)
class SkippedEntries:
    """What was not taken of the lists of one reading."""

    unreadable_count: int = 0
    surplus_count: int = 0

    @classmethod
    def from_page(cls, page: Page[Any]) -> Self:
        return cls(page.unreadable_count, page.surplus_count)

    def add_page(self, page: Page[Any]) -> None:
        self.unreadable_count += page.unreadable_count
        self.surplus_count += page.surplus_count

    def log_change(self, previous: ListDefects, *, name: str) -> None:
        """Log the begin and the end of such a defect."""
        if previous.is_partial == bool(self.unreadable_count or self.surplus_count):
            return
        if previous.is_partial:
            log.info("list.complete", list=name)
        else:
            log.warning(
                "list.incomplete",
                left_out=self.unreadable_count,
                surplus=self.surplus_count,
                list=name,
            )


@dataclass(frozen=True, slots=True)
class StageReader:
    """Reads stages over a connection. All of it raises NorthflankError.

    `ahead`: what it asks is a first read, and may be ahead of the even rate.
    """

    connection: Connection
    is_first_read: bool = False

    async def call[T](
        self,
        request: Callable[[NorthflankClient], Awaitable[T]],
        *,
        request_seq: int | None = None,
    ) -> T:
        """Put a question to Northflank; raises NorthflankError."""
        try:
            return await self.connection.call(request, request_seq=request_seq)
        finally:
            if self.is_first_read:
                await run_in_db_thread(budget_store.exclude_from_burst, 1)

    async def read_newest_runs(self, stage: Stage, skipped: SkippedEntries) -> dict[str, object]:
        """Read a stage's newest runs, and return what is known of it by that."""
        page = await self._read_first_page(stage, skipped)
        if page is None:
            return {"has_flow": False, "flow_synced_at": now(), "in_flight_incomplete": False}
        updates: dict[str, object] = {"confirmed_path_segment": stage.confirmed_path_segment}
        if page.items:  # an empty list may be that of a stage without a release flow
            updates["has_flow"] = True
        if not page.has_next:
            return updates | {"in_flight_incomplete": False, "next_history_page": None}
        order = _detect_order(page.items)
        if order != ListOrder.NEWEST:
            await self.read_page(stage, skipped, None, concluded=False)
            if stage.list_order != order:
                updates |= {"list_order": order, "next_history_page": 1}
            return updates | {"in_flight_incomplete": False}
        last_synced_at = stage.synced_at
        reaches_back = last_synced_at is not None and any(
            run.created_at is not None and run.created_at < last_synced_at for run in page.items
        )
        return updates | {"in_flight_incomplete": not reaches_back}

    async def _read_first_page(self, stage: Stage, skipped: SkippedEntries) -> Page[ApiRun] | None:
        """Return the first page of a stage's runs; None where it has no release flow."""
        if stage.confirmed_path_segment:
            return await self.read_page(stage, skipped, 1)
        confirmed_segment = await run_in_db_thread(path_spelling.find_confirmed)
        segments = path_spelling.candidate_segments(stage.name, confirmed_segment)
        for path in segments if confirmed_segment is None else segments[:1]:
            stage.confirmed_path_segment = path
            try:
                return await self.read_page(stage, skipped, 1)
            except NotFound:
                continue
        stage.confirmed_path_segment = ""
        return None

    async def read_flow(self, stage: Stage, moment: datetime) -> None:
        """Read the definition of a stage's release flow, and keep it or that it has none."""
        flow_and_segment = await self._find_flow(stage)
        if flow_and_segment is None and stage.has_flow and await self._has_runs(stage):
            # What it said of the flow was wrong, or it lists the runs of one that was deleted.
            await run_in_db_thread(catalog.mark_flow_checked, stage.pk, moment)
            return
        if (
            flow_and_segment is None
            and stage.has_flow
            and not await run_in_db_thread(catalog.mark_flow_missing, stage.pk, moment)
        ):
            raise NotFound("Northflank knows no release flow here. It is asked again in minutes.")
        await run_in_db_thread(catalog.mirror_release_flow, stage.pk, flow_and_segment, now=moment)
        stage.has_flow, stage.flow_synced_at = flow_and_segment is not None, moment
        stage.confirmed_path_segment = (
            flow_and_segment[1] if flow_and_segment else stage.confirmed_path_segment
        )

    async def _has_runs(self, stage: Stage) -> bool:
        project, pipeline = stage.pipeline.project.slug, stage.pipeline.slug
        try:
            page = await self.call(
                lambda nf: nf.list_runs(project, pipeline, stage.confirmed_path_segment, per_page=1)
            )
        except NotFound:
            return False
        return bool(page.items)

    async def _find_flow(self, stage: Stage) -> tuple[ReleaseFlow, str] | None:
        project, pipeline = stage.pipeline.project.slug, stage.pipeline.slug
        prefer_capitalised = path_spelling.is_capitalised(
            await run_in_db_thread(path_spelling.find_confirmed)
        )
        flow_and_segment = await self.call(
            lambda nf: find_release_flow(
                nf, project, pipeline, stage.name, prefer_capitalised=prefer_capitalised
            )
        )
        if flow_and_segment is None and stage.has_flow:
            # A right that was withdrawn may look the same; then the pipeline is not found either.
            await self.call(lambda nf: nf.check_pipeline(project, pipeline))
        return flow_and_segment

    async def read_runs(self, stage: Stage, skipped: SkippedEntries, *, with_history: bool) -> None:
        """Read a stage's newest runs and those in flight; with `past`, a page or two before them.

        What the lists left out is counted in `taken`.
        """
        if stage.list_order == ListOrder.NEWEST:
            first = await self.read_page(stage, skipped, 1)
            order = _detect_order(first.items) if first.has_next else ListOrder.NEWEST
            if order == ListOrder.NEWEST:
                if first.has_next and (stage.synced_at is None or stage.in_flight_incomplete):
                    # A run that hangs may stand far behind the newest hundred.
                    await self.read_page(stage, skipped, None, concluded=False)
                if first.has_next and with_history:
                    await self._read_history(stage, skipped)
                return
            stage.list_order = order
            await run_in_db_thread(_save_order, stage.pk, order)
        # The newest runs may be on any page: those in flight are asked for by themselves, and
        # the pages are walked, from where the last walk ended.
        await self.read_page(stage, skipped, None, concluded=False)
        if with_history or stage.synced_at is None:
            await self.read_next_pages(stage, skipped)

    async def _read_history(self, stage: Stage, skipped: SkippedEntries) -> None:
        """Read one more page of the past, until all of it that we want is here."""
        if stage.next_history_page is None:
            return
        page = await self.read_page(stage, skipped, stage.next_history_page)
        has_more = page.has_next and stage.next_history_page < MAX_HISTORY_PAGES
        await run_in_db_thread(
            _save_history_page, stage.pk, stage.next_history_page + 1 if has_more else None
        )

    async def read_next_pages(self, stage: Stage, skipped: SkippedEntries) -> None:
        """Read the next pages of a list in another order than the newest first."""
        page_number = stage.next_history_page or 1
        for _ in range(WALK_PAGES):
            page = await self.read_page(stage, skipped, page_number)
            if not page.has_next:
                break
            page_number += 1
        if stage.list_order == ListOrder.NONE and not page.has_next:
            page_number = 1  # round and round
        await run_in_db_thread(_save_history_page, stage.pk, page_number)

    async def read_page(
        self,
        stage: Stage,
        skipped: SkippedEntries,
        page_number: int | None,
        *,
        concluded: bool | None = None,
    ) -> Page[ApiRun]:
        """Read one page of a stage's runs, mirror it, and return it; None: without a number."""
        project, pipeline = stage.pipeline.project.slug, stage.pipeline.slug
        stamp = await run_in_db_thread(_stamp_request)
        page = await self.call(
            lambda nf: nf.list_runs(
                project,
                pipeline,
                stage.confirmed_path_segment,
                page=page_number,
                concluded=concluded,
                per_page=PER_PAGE,
            ),
            request_seq=stamp["request_seq"],
        )
        skipped.add_page(page)
        await run_in_db_thread(mirror.apply_runs, stage.pk, page.items, **stamp)
        if page_number in {None, 1}:
            await run_in_db_thread(mirror.schedule_unlisted, stage.pk, page.items, **stamp)
        return page


async def read_run(connection: Connection, run: Run) -> Run | None:
    """Read one mirrored run's detail, and return its row; None where Northflank knows it no more.

    Raises NorthflankError; the run is then due again after a rest.
    """
    stamp = await run_in_db_thread(_stamp_request)
    try:
        run_detail = await _fetch_detail(connection, run, stamp["request_seq"])
    except NorthflankError as error:
        if connection.is_account_wide(error):
            await run_in_db_thread(mirror.retry_on_recovery, run.pk, now())
        else:
            await run_in_db_thread(mirror.back_off, run.pk, error, now())
        raise
    if run_detail is None:
        await run_in_db_thread(mirror.mark_removed, run.pk, **stamp)
        return None
    if run_detail.run.id != run.run_id:
        wrong_run = UnexpectedResponse(
            "Unexpected response from Northflank: it is about another run.", http_status=200
        )
        await run_in_db_thread(mirror.back_off, run.pk, wrong_run, now())
        raise wrong_run
    return await run_in_db_thread(mirror.apply_detail, run.stage_id, run_detail, **stamp)


async def _fetch_detail(connection: Connection, run: Run, request_seq: int) -> RunDetail | None:
    """Ask for a run; None where neither it nor its stage's list knows of it any more.

    Raises NorthflankError, also where the list can't be read: then the 404 may be of more than the
    run, or of all that is asked.
    """
    stage = run.stage
    stage_path = stage.pipeline.project.slug, stage.pipeline.slug, stage.path_segment
    try:
        return await connection.call(
            lambda nf: nf.get_run(*stage_path, run.run_id), request_seq=request_seq
        )
    except NotFound:
        if run.removed_at is not None or stage.has_flow is False:
            return None
    concluded = None if run.concluded else False
    page = await connection.call(
        lambda nf: nf.list_runs(*stage_path, page=1, concluded=concluded, per_page=PER_PAGE),
        request_seq=request_seq,
    )
    if any(api_run.id == run.run_id for api_run in page.items):
        raise UnexpectedResponse(
            "Northflank lists this run, and answers that there is no such run.", http_status=404
        )
    return None


class _RequestStamp(TypedDict):
    """When a question is put, and its number."""

    requested_at: datetime
    request_seq: int


def _stamp_request() -> _RequestStamp:
    return {"requested_at": now(), "request_seq": RequestCounter.take_next()}


def _detect_order(runs: Sequence[ApiRun]) -> ListOrder:
    times = [run.created_at for run in runs if run.created_at is not None]
    if times == sorted(times, reverse=True):
        return ListOrder.NEWEST
    return ListOrder.OLDEST if times == sorted(times) else ListOrder.NONE


def _save_order(stage_pk: int, order: ListOrder) -> None:
    Stage.objects.filter(pk=stage_pk).update(list_order=order, next_history_page=1)


def _save_history_page(stage_pk: int, page_number: int | None) -> None:
    Stage.objects.filter(pk=stage_pk).update(next_history_page=page_number)
