"""One read of a list, stage, run, job run or link: what it asks Northflank, and what is recorded.

A job reads, mirrors and schedules the next read. If Northflank does not answer, the worker calls
`fail`; if it answers nobody at present, only of a job that somebody waits for: others stay due.
"""

import contextlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, ClassVar

import structlog

from dashboard.db.prepared import update_row
from dashboard.db.threads import now, run_in_db_thread
from dashboard.models import CatalogSync, ReadRequest, RequestCounter, Run, Stage, Work
from dashboard.northflank import NorthflankError, NotFound, Page, RunDetail, fetch_all_pages
from dashboard.sync import catalog, due, left_running, mirror, schedule
from dashboard.sync.read_plan import ReadPlan
from dashboard.sync.run_reader import place, read_run
from dashboard.sync.stage_reader import StageReader, log_omissions
from dashboard.upstream import access_hint

log = structlog.get_logger(__name__)

_NO_ERROR: dict[str, Any] = {"error": "", "error_message": "", "error_since": None}


type ReadRow = CatalogSync | Stage | Run | Work | ReadRequest


@dataclass(slots=True)
class ReadJob[R: ReadRow](ABC):
    """A read of one row, which one job of each class reads at a time."""

    row: R
    plan: ReadPlan
    is_awaited: ClassVar = False  # by a person

    @abstractmethod
    async def read(self, reader: StageReader) -> None:
        """Read it and record the result. Raises NorthflankError."""

    @abstractmethod
    def fail(self, error: NorthflankError, started_at: datetime) -> None:
        """Record that it could not be read, and when to try again."""

    def unplanned(self, requests: int) -> int:
        """Return how many of its `requests` the plan of reads does not contain."""
        return requests


class ListJob(ReadJob[CatalogSync]):
    """A read of the list of projects, or of one project's pipelines."""

    def unplanned(self, requests: int) -> int:
        return 0

    async def read(self, reader: StageReader) -> None:
        moment, project = now(), self.row.project
        seq = await run_in_db_thread(RequestCounter.take_next)
        whole_list: Page[Any]
        if project is None:
            whole_list = await reader.call(
                lambda nf: fetch_all_pages(nf.list_projects), request_seq=seq
            )
        else:
            slug = project.slug
            whole_list = await reader.call(
                lambda nf: fetch_all_pages(lambda page: nf.list_pipelines(slug, page)),
                request_seq=seq,
            )
        await reader.term.write(self._record, whole_list, moment, seq)

    def _record(self, whole_list: Page[Any], moment: datetime, seq: int) -> None:
        project, name = self.row.project, _list_name(self.row)
        is_unconfirmed = (
            catalog.mirror_projects(whole_list, now=moment, request_seq=seq)
            if project is None
            else catalog.mirror_pipelines(project, whole_list, now=moment, request_seq=seq)
        )
        interval = self.plan.lists_interval
        if is_unconfirmed:
            interval = min(interval, catalog.REMOVAL_CONFIRMATION_TIME)
        if self.row.error:
            log.info("catalog.recovered", list=name, after=self.row.error)
        log_omissions(name, whole_list)
        update_row(
            CatalogSync,
            self.row.pk,
            synced_at=moment,
            next_sync_at=moment + interval,
            failures=0,
            **_NO_ERROR,
        )

    def fail(self, error: NorthflankError, started_at: datetime) -> None:
        if not self.row.error:
            # Without the list of projects nothing can be read: say what to check.
            hint = {} if self.row.project else access_hint.log_fields(error.cause)
            log.warning(
                "catalog.read_failed",
                list=_list_name(self.row),
                cause=error.cause,
                message=str(error),
                **hint,
            )
        failures = self.row.failures + 1
        update_row(
            CatalogSync,
            self.row.pk,
            **_error_fields(self.row, error, started_at),
            failures=failures,
            next_sync_at=started_at + schedule.failure_backoff(failures, error.cause),
        )


@dataclass(slots=True)
class StageJob(ReadJob[Stage]):
    """A read of a stage's runs, and of its release flow if that is due.

    `is_new`: it has a gap, such as a stage newer than the plan. Only what it lacks is read, its
    newest runs or the older ones in flight. After a failure its flow is read first: it may have
    none.
    """

    is_new: bool = field(init=False, default=False)

    async def read(self, reader: StageReader) -> None:
        stage, moment = self.row, now()
        self.is_new = not stage.failures and schedule.has_gap(stage, moment)
        if self.is_new:
            await self._read_new(reader, moment)
            return
        is_decisive = await run_in_db_thread(due.decides_by_flow, stage, moment)
        if schedule.is_flow_due(stage, moment, is_decisive=is_decisive):
            await self._read_flow(reader, moment)
        if stage.has_flow:
            # Not after a failure, which may be that of an older page.
            with_history = not stage.failures and schedule.is_history_due(
                stage.synced_at, _interval(stage), moment
            )
            await reader.read_runs(stage, with_history=with_history)
        await reader.term.write(self._record, moment, in_flight_incomplete=False)

    def unplanned(self, requests: int) -> int:
        if self.is_new:
            return 0
        return requests if due.has_event(self.row) else max(requests - 1, 0)

    async def _read_new(self, reader: StageReader, moment: datetime) -> None:
        updates: dict[str, Any] = {"in_flight_incomplete": False}
        if schedule.is_unread(self.row, moment):
            updates = await reader.read_newest_runs(self.row)
        else:
            await reader.read_in_flight(self.row)
        await reader.term.write(self._record, moment, **updates)

    async def _read_flow(self, reader: StageReader, moment: datetime) -> None:
        """Read the release flow; one that cannot be read does not keep the runs from being read."""
        try:
            await reader.read_flow(self.row, moment)
        except NotFound:
            raise
        except NorthflankError as error:
            if not self.row.has_flow or reader.connection.is_account_wide(error):
                raise
            log.warning("flow.read_failed", stage=str(self.row), cause=error.cause)
            await reader.term.write(catalog.mark_flow_checked, self.row.pk, moment)

    def _record(self, moment: datetime, **updates: Any) -> None:
        """Record a read of the stage's runs."""
        if self.row.error:
            log.info("stage.recovered", stage=str(self.row), after=self.row.error)
        fields = {"synced_at": moment, "failures": 0} | _NO_ERROR | updates
        due.record_stage(
            self.row, now(), self.plan, started_at=moment, is_first=self.is_new, **fields
        )

    def fail(self, error: NorthflankError, started_at: datetime) -> None:
        stage, fields = self.row, _error_fields(self.row, error, started_at)
        if not stage.failures:
            log.warning(
                "stage.read_failed", stage=str(stage), cause=error.cause, message=str(error)
            )
        due.record_stage(
            stage,
            now(),
            self.plan,
            started_at=started_at,
            **fields,
            failures=stage.failures + 1,
            # A stage that is not found may have lost its flow: check that first next time.
            flow_synced_at=None if error.cause == "not_found" else stage.flow_synced_at,
        )


class RunJob(ReadJob[Run]):
    """A read of a run's detail; `read_run` records failures."""

    async def read(self, reader: StageReader) -> None:
        reader.request_count += 1
        run = await read_run(reader.connection, self.row, reader.term)
        if run is not None:
            await reader.term.write(due.record_run, self.row, now(), self.plan)
            await reader.term.write(left_running.schedule_named, run)

    def unplanned(self, requests: int) -> int:
        return requests if not self.row.in_flight or self.row.status == "aborting" else 0

    def fail(self, error: NorthflankError, started_at: datetime) -> None:
        pass


class WorkJob(ReadJob[Work]):
    """A read of a job run or build that an abort may have left running."""

    async def read(self, reader: StageReader) -> None:
        reader.request_count += 1
        await left_running.read_again(reader.connection, self.row.run, self.row)
        await reader.term.write(left_running.schedule_next, self.row, has_failed=False)

    def fail(self, error: NorthflankError, started_at: datetime) -> None:
        left_running.schedule_next(self.row, has_failed=True)


class LinkJob(ReadJob[ReadRequest]):
    """A read of the run of a link, which names its stage."""

    is_awaited: ClassVar = True

    async def read(self, reader: StageReader) -> None:
        stage = self.row.stage
        if stage is None:
            raise ValueError("A link names a stage.")
        requested_at, seq = now(), await run_in_db_thread(RequestCounter.take_next)
        detail = None
        with contextlib.suppress(NotFound):
            detail = await reader.call(
                lambda nf: nf.get_run(*place(stage), self.row.run_id), request_seq=seq
            )
        await reader.term.write(self._record, stage, detail, requested_at, seq)

    def _record(
        self, stage: Stage, detail: RunDetail | None, requested_at: datetime, seq: int
    ) -> None:
        if detail is not None and detail.run.id != self.row.run_id:
            log.warning("link.wrong_run", requested=self.row.run_id, received=detail.run.id)
        elif detail is not None:
            mirror.apply_detail(stage.pk, detail, requested_at=requested_at, request_seq=seq)
            row = Stage.objects.filter(pk=stage.pk)
            # A stage with a run has a release flow, whatever it had when it was last checked.
            row.filter(has_flow=False).update(flow_synced_at=None, next_sync_at=now())
        self._answer()

    def fail(self, error: NorthflankError, started_at: datetime) -> None:
        self._answer(str(error))

    def _answer(self, error: str = "") -> None:
        ReadRequest.objects.filter(pk=self.row.pk).update(answered_at=now(), error=error)


def _list_name(catalog_sync: CatalogSync) -> str:
    return catalog_sync.project.slug if catalog_sync.project else "all projects"


def _error_fields(
    row: Stage | CatalogSync, error: NorthflankError, moment: datetime
) -> dict[str, Any]:
    return {
        "error": error.cause,
        "error_message": str(error),
        "error_since": row.error_since or moment,
    }


def _interval(stage: Stage) -> timedelta:
    """Return the time between two reads of a stage, as planned at the last."""
    if stage.fresh_until is None or stage.synced_at is None:
        return timedelta()
    return stage.fresh_until - stage.synced_at
