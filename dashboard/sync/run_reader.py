"""Read one run from Northflank and mirror it; find out whether one that is not found is removed."""

from datetime import datetime
from typing import TypedDict

from dashboard.db.prepared import update_row
from dashboard.db.threads import now, run_in_db_thread
from dashboard.models import RequestCounter, Run, Stage
from dashboard.northflank import NorthflankError, NotFound, RunDetail, UnexpectedResponse
from dashboard.sync import mirror, missing_runs
from dashboard.sync.lead import Term
from dashboard.upstream.connection import Connection


class RequestStamp(TypedDict):
    """When a request is sent, and its number."""

    requested_at: datetime
    request_seq: int


def stamp_request() -> RequestStamp:
    """Return the stamp of a request that is sent now."""
    return {"requested_at": now(), "request_seq": RequestCounter.take_next()}


def place(stage: Stage) -> tuple[str, str, str]:
    """Return a stage as the client's methods take it: project, pipeline and name."""
    return stage.pipeline.project.slug, stage.pipeline.slug, stage.name


async def read_run(connection: Connection, run: Run, term: Term | None = None) -> Run | None:
    """Read a mirrored run's detail and return its row; None if Northflank no longer has the run.

    Raises NorthflankError; the run is then due again after a backoff. With `term`, raises LeadLost
    once it is over.
    """
    if term is not None:
        term.verify()
    write = term.write if term is not None else run_in_db_thread
    stamp = await run_in_db_thread(stamp_request)
    try:
        run_detail = await _fetch_detail(connection, run, stamp["request_seq"])
        if run_detail is not None and run_detail.run.id != run.run_id:
            raise UnexpectedResponse(
                "Unexpected response from Northflank: it describes another run.", http_status=200
            )
    except NorthflankError as error:
        if connection.is_account_wide(error):
            # It is read once the outage is over.
            await write(update_row, Run, run.pk, next_detail_sync_at=now())
        else:
            await write(missing_runs.back_off, run.pk, error, now())
        raise
    if run_detail is None:
        await write(missing_runs.mark_removed, run.pk, **stamp)
        return None
    return await write(mirror.apply_detail, run.stage_id, run_detail, **stamp)


async def _fetch_detail(connection: Connection, run: Run, request_seq: int) -> RunDetail | None:
    """Return a run's detail; None if it is not found and its stage's list lacks it too.

    For a concluded run, that is the first page of all runs; else the list of those in flight.
    Raises NorthflankError, also if the list can't be read, or if those in flight have another page:
    then the 404 may be wrong.
    """
    stage = run.stage
    try:
        return await connection.call(
            lambda nf: nf.get_run(*place(stage), run.run_id), request_seq=request_seq
        )
    except NotFound:
        if run.removed_at is not None or stage.has_flow is False:
            return None
        concluded = None if run.concluded else False
        page = await connection.call(
            lambda nf: nf.list_runs(*place(stage), concluded=concluded),
            request_seq=request_seq,
        )
        if any(api_run.id == run.run_id for api_run in page.items):
            raise UnexpectedResponse(
                "Northflank lists this run but returns 404 for it.", http_status=404
            ) from None
        if page.has_next and not run.concluded:
            raise
        return None
