"""The read that answers a link to a run that was never read: its detail, in the stage it names."""

import contextlib
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import structlog

from dashboard.db.threads import now, run_in_db_thread
from dashboard.models import ReadRequest, RequestCounter, Stage
from dashboard.northflank import NorthflankClient, NorthflankError, NotFound, RunDetail
from dashboard.sync import mirror, path_spelling
from dashboard.sync.read_jobs import ReadJob
from dashboard.sync.stage_reader import StageReader

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class LinkJob(ReadJob):
    """A read of the run of a link, which names its stage."""

    link: ReadRequest

    @property
    def key(self) -> int:
        return self.link.pk

    async def read(self, reader: StageReader) -> None:
        stage = self.link.stage
        if stage is None:
            raise ValueError("A link names a stage.")
        place = stage.pipeline.project.slug, stage.pipeline.slug
        requested_at, seq = now(), await run_in_db_thread(RequestCounter.take_next)
        detail, segment = None, ""
        for segment in await run_in_db_thread(_candidate_segments, stage):
            with contextlib.suppress(NotFound):
                request = partial(_fetch_run, *place, segment, self.link.run_id)
                detail = await reader.call(request, request_seq=seq)
                break
        await reader.term.write(self._record, stage, detail, segment, requested_at, seq)

    def unplanned(self, requests: int) -> int:
        return requests

    def _record(
        self, stage: Stage, detail: RunDetail | None, segment: str, requested_at: datetime, seq: int
    ) -> None:
        if detail is not None and detail.run.id != self.link.run_id:
            log.warning("run_lookup.wrong_run", requested=self.link.run_id, received=detail.run.id)
        elif detail is not None:
            mirror.apply_detail(stage.pk, detail, requested_at=requested_at, request_seq=seq)
            row = Stage.objects.filter(pk=stage.pk)
            row.filter(confirmed_path_segment="").update(confirmed_path_segment=segment)
            # A stage with a run has a release flow, whatever it had when it was last checked.
            row.filter(has_flow=False).update(flow_synced_at=None, next_sync_at=now())
        self._answer()

    def fail(self, error: NorthflankError, started_at: datetime) -> None:
        self._answer(str(error))

    def requeue(self, error: NorthflankError) -> None:
        self._answer(str(error))  # somebody waits

    def _answer(self, error: str = "") -> None:
        ReadRequest.objects.filter(pk=self.link.pk).update(answered_at=now(), error=error)


def _candidate_segments(stage: Stage) -> tuple[str, ...]:
    """Return the path segments to try: the stage's confirmed one, that of others, or else both."""
    if stage.confirmed_path_segment:
        return (stage.confirmed_path_segment,)
    confirmed = path_spelling.find_confirmed()
    segments = path_spelling.candidate_segments(stage.name, confirmed)
    return segments if confirmed is None else segments[:1]


async def _fetch_run(
    project: str, pipeline: str, stage: str, run_id: str, client: NorthflankClient
) -> RunDetail:
    return await client.get_run(project, pipeline, stage, run_id)
