"""Read one stage from Northflank and mirror it: which requests, in which order.

The leader decides when and how often (worker.py). Northflank does not document the order of runs in
a list; the first page shows it.
"""

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import structlog

from dashboard.db.prepared import update_row
from dashboard.db.threads import now, run_in_db_thread
from dashboard.models import Run, Stage
from dashboard.northflank import NorthflankClient, NotFound, Page, ReleaseFlow
from dashboard.northflank import Run as ApiRun
from dashboard.sync import catalog, mirror, missing_runs, pruning, run_rows
from dashboard.sync.lead import Term
from dashboard.sync.run_reader import RequestStamp, place, stamp_request
from dashboard.upstream.connection import Connection

log = structlog.get_logger(__name__)

MAX_HISTORY_PAGES = 20  # how many pages of older runs are read
# Pages per read of a stage's runs in flight; those behind them are found with the older runs.
IN_FLIGHT_PAGES = 3
# Most requests of one read: the flow by two spellings, the newest runs, and then IN_FLIGHT_PAGES,
# or one of them and an older page.
MAX_REQUESTS_PER_READ = 6
# Most requests of a first read: the newest runs by two spellings, IN_FLIGHT_PAGES.
MAX_REQUESTS_PER_FIRST_READ = 5
# Runs that one push starts may be listed in another order than that of their creation.
ORDER_TOLERANCE = timedelta(seconds=5)


@dataclass(slots=True)
class StageReader:
    """Read a stage over a connection; all methods raise NorthflankError.

    They raise LeadLost, and neither send nor write anything, once `term` is over. `is_first_read`:
    its requests may be ahead of the even rate. `request_count` is the number of those sent so far.
    """

    connection: Connection
    term: Term
    is_first_read: bool = False
    request_count: int = 0

    async def call[T](
        self,
        request: Callable[[NorthflankClient], Awaitable[T]],
        *,
        request_seq: int | None = None,
    ) -> T:
        """Send one request to Northflank and return its answer."""
        self.term.verify()
        self.request_count += 1
        return await self.connection.call(
            request, request_seq=request_seq, excluded_from_burst=int(self.is_first_read)
        )

    async def read_newest_runs(self, stage: Stage) -> dict[str, object]:
        """Read a stage's newest runs; return the stage fields to update."""
        try:
            page = await self.read_page(stage, 1)
        except NotFound:
            if stage.has_flow:
                raise
            return {
                "has_flow": False,
                "missing_since": stage.missing_since or now(),
                "flow_synced_at": now(),
                "in_flight_incomplete": False,
            }
        # A stage without a release flow may have an empty list.
        updates: dict[str, object] = {"has_flow": True} if page.items else {}
        if not page.has_next:
            return updates | {"in_flight_incomplete": False, "next_history_page": None}
        if not _is_newest_first(page):
            await self.read_in_flight(stage, page.items)
            return updates | {"in_flight_incomplete": False}
        return updates | {
            "in_flight_incomplete": stage.in_flight_incomplete or stage.synced_at is None
        }

    async def read_flow(self, stage: Stage, moment: datetime) -> None:
        """Read a stage's release flow and record it, or that there is none."""
        flow = await self._find_flow(stage)
        if flow is None and stage.has_flow and await self._has_runs(stage):
            # The flow answer was wrong, or the list shows the runs of a deleted flow.
            await self.term.write(catalog.mark_flow_checked, stage.pk, moment)
            return
        if (
            flow is None
            and stage.has_flow
            and not await self.term.write(catalog.mark_flow_missing, stage.pk, moment)
        ):
            raise NotFound("No release flow found on Northflank. Retrying in a few minutes.")
        await self.term.write(catalog.mirror_release_flow, stage.pk, flow, now=moment)
        stage.has_flow, stage.flow_synced_at = flow is not None, moment

    async def _has_runs(self, stage: Stage) -> bool:
        try:
            page = await self.call(lambda nf: nf.list_runs(*place(stage), per_page=1))
        except NotFound:
            return False
        return bool(page.items)

    async def _find_flow(self, stage: Stage) -> ReleaseFlow | None:
        with contextlib.suppress(NotFound):
            return await self.call(lambda nf: nf.get_release_flow(*place(stage)))
        if stage.has_flow:
            # A revoked permission may look the same; then this raises NotFound for the pipeline.
            await self.call(lambda nf: nf.check_pipeline(*place(stage)[:2]))
        return None

    async def read_runs(self, stage: Stage, *, with_history: bool) -> None:
        """Read a stage's newest runs and those in flight; `with_history`: a page of older ones."""
        first = await self.read_page(stage, 1)
        if not first.has_next:
            return
        # A stuck run may be far behind the newest hundred, and without an order any run.
        is_unread = stage.synced_at is None or stage.in_flight_incomplete
        if is_unread or not _is_newest_first(first):
            await self.read_in_flight(stage, first.items, is_short=with_history)
        if with_history:
            await self._read_history(stage, first)

    async def _read_history(self, stage: Stage, first: Page[ApiRun]) -> None:
        """Read one more page of older runs, up to MAX_HISTORY_PAGES, or to those pruned.

        Without an order any page may have new runs: all are read, again and again.
        """
        is_ordered = _is_newest_first(first)
        number = stage.next_history_page or (None if is_ordered else 2)
        if number is None:
            return
        page = await self.read_page(stage, number)
        if page.omitted and not page.items and not page.has_next:
            return  # the page had no list, or no entry that can be read: the next read may have it
        limit = pruning.run_limit(now())
        is_last = not page.has_next or (
            is_ordered
            and (
                number >= MAX_HISTORY_PAGES
                or (page.items and all(run_rows.ended_before(run, limit) for run in page.items))
            )
        )
        following = number + 1 if not is_last else None if is_ordered else 2
        await self.term.write(update_row, Stage, stage.pk, next_history_page=following)

    async def read_in_flight(
        self, stage: Stage, listed: Sequence[ApiRun] = (), *, is_short: bool = False
    ) -> None:
        """Read and mirror a stage's runs in flight; make due the details of tracked runs that are
        neither among them nor `listed`.

        `is_short`: one page only; if there are more, a later read makes the details due.
        """
        runs = {run.id: run for run in listed}
        stamps = []
        for page_number in range(1, 2 if is_short else IN_FLIGHT_PAGES + 1):
            stamps.append(await run_in_db_thread(stamp_request))
            page = await self._request_page(stage, page_number, stamps[-1], concluded=False)
            log_omissions(str(stage), page)
            await self.term.write(mirror.apply_runs, stage.pk, page.items, **stamps[-1])
            runs |= {run.id: run for run in page.items}
            if not page.has_next:
                break
        if not (is_short and page.has_next):
            await self.term.write(
                missing_runs.schedule_unlisted, stage.pk, runs.values(), **stamps[0]
            )

    async def read_page(self, stage: Stage, page_number: int) -> Page[ApiRun]:
        """Read and mirror one page of a stage's runs."""
        stamp = await run_in_db_thread(stamp_request)
        page = await self._request_page(stage, page_number, stamp)
        await self.term.write(_mirror_page, stage, page_number, page, stamp)
        return page

    async def _request_page(
        self,
        stage: Stage,
        page_number: int,
        stamp: RequestStamp,
        *,
        concluded: bool | None = None,
    ) -> Page[ApiRun]:
        """Return one page of a stage's runs, or of those with this `concluded`."""
        return await self.call(
            lambda nf: nf.list_runs(*place(stage), page=page_number, concluded=concluded),
            request_seq=stamp["request_seq"],
        )


_incomplete_lists: set[str] = set()  # already logged by this process


def log_omissions(name: str, page: Page[Any]) -> None:
    """Log, once, that entries of a list cannot be mirrored."""
    if page.omitted and name not in _incomplete_lists:
        _incomplete_lists.add(name)
        log.warning("list.incomplete", list=name, left_out=page.omitted)


def _mirror_page(stage: Stage, page_number: int, page: Page[ApiRun], stamp: RequestStamp) -> None:
    is_cut = page_number == 1 and page.has_next and _is_newest_first(page)
    if is_cut and _is_last_new(stage, page):
        # The runs behind this page may be as new. Before they are stored, and not new any more.
        stage.in_flight_incomplete, stage.next_history_page = True, 2
        update_row(Stage, stage.pk, in_flight_incomplete=True, next_history_page=2)
    mirror.apply_runs(stage.pk, page.items, **stamp)
    log_omissions(str(stage), page)
    if page_number == 1 and not page.has_next:
        missing_runs.schedule_unlisted(stage.pk, page.items, **stamp)
    if is_cut:
        # One run behind this page is read by its detail, several by the list of those in flight.
        unlisted = missing_runs.count_unlisted(stage.pk, page.items, stamp["request_seq"])
        if unlisted > 1:
            stage.in_flight_incomplete = True
        elif unlisted:
            missing_runs.schedule_unlisted(stage.pk, page.items, **stamp)


def _is_last_new(stage: Stage, page: Page[ApiRun]) -> bool:
    if not page.items or run_rows.ended_before(page.items[-1], stage.pruned_until):
        return False
    return not Run.objects.filter(stage=stage, run_id=page.items[-1].id).exists()


def _is_newest_first(first: Page[ApiRun]) -> bool:
    """Return whether a list has this order, by its first page; if it has no other."""
    times = [run.created_at for run in first.items if run.created_at is not None]
    if not first.has_next or not times:
        return True
    steps = (later - earlier for earlier, later in pairwise(times))
    return times[-1] <= times[0] and all(step <= ORDER_TOLERANCE for step in steps)
