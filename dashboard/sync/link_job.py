"""The read that answers a link to a run that was never read: its detail, in the stage it names."""

import contextlib
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

import structlog

from dashboard.db.threads import now, run_in_db_thread
from dashboard.models import ReadRequest, RequestCounter, Stage
from dashboard.northflank import NorthflankError, NotFound, RunDetail
from dashboard.sync import mirror
from dashboard.sync.read_jobs import ReadJob
from dashboard.sync.stage_reader import StageReader

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class LinkJob(ReadJob):
    """A read of the run of a link, which names its stage."""

    link: ReadRequest
    is_awaited: ClassVar = True

    @property
    def key(self) -> int:
        return self.link.pk

    async def read(self, reader: StageReader) -> None:
        stage = self.link.stage
        if stage is None:
            raise ValueError("A link names a stage.")
        place = stage.pipeline.project.slug, stage.pipeline.slug, stage.name
        requested_at, seq = now(), await run_in_db_thread(RequestCounter.take_next)
        detail = None
        with contextlib.suppress(NotFound):
            detail = await reader.call(
                lambda nf: nf.get_run(*place, self.link.run_id), request_seq=seq
            )
        await reader.term.write(self._record, stage, detail, requested_at, seq)

    def unplanned(self, requests: int) -> int:
        return requests

    def _record(
        self, stage: Stage, detail: RunDetail | None, requested_at: datetime, seq: int
    ) -> None:
        if detail is not None and detail.run.id != self.link.run_id:
            log.warning("link.wrong_run", requested=self.link.run_id, received=detail.run.id)
        elif detail is not None:
            mirror.apply_detail(stage.pk, detail, requested_at=requested_at, request_seq=seq)
            row = Stage.objects.filter(pk=stage.pk)
            # A stage with a run has a release flow, whatever it had when it was last checked.
            row.filter(has_flow=False).update(flow_synced_at=None, next_sync_at=now())
        self._answer()

    def fail(self, error: NorthflankError, started_at: datetime) -> None:
        self._answer(str(error))

    def _answer(self, error: str = "") -> None:
        ReadRequest.objects.filter(pk=self.link.pk).update(answered_at=now(), error=error)
