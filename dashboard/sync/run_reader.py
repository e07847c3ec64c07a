"""Read one run from Northflank and mirror it; find out whether one that is not found is removed."""

from datetime import datetime
from typing import TypedDict

from dashboard.db.threads import now, run_in_db_thread
from dashboard.models import RequestCounter, Run
from dashboard.northflank import NorthflankError, NotFound, Page, RunDetail, UnexpectedResponse
from dashboard.northflank import Run as ApiRun
from dashboard.sync import mirror, removed_runs, unlisted_runs
from dashboard.sync.lead import Term
from dashboard.upstream.connection import Connection

PER_PAGE = 100  # Northflank's maximum
# Pages per read of a stage's runs in flight; those behind them are found with the older runs.
IN_FLIGHT_PAGES = 3


class RequestStamp(TypedDict):
    """When a request is sent, and its number."""

    requested_at: datetime
    request_seq: int


def stamp_request() -> RequestStamp:
    """Return the stamp of a request that is sent now."""
    return {"requested_at": now(), "request_seq": RequestCounter.take_next()}


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
            await write(unlisted_runs.retry_on_recovery, run.pk, now())
        else:
            await write(unlisted_runs.back_off, run.pk, error, now())
        raise
    if run_detail is None:
        await write(removed_runs.mark_removed, run.pk, **stamp)
        return None
    return await write(mirror.apply_detail, run.stage_id, run_detail, **stamp)


async def _fetch_detail(connection: Connection, run: Run, request_seq: int) -> RunDetail | None:
    """Return a run's detail; None if it is not found and its stage's list lacks it too.

    For a concluded run, that is the first page of all runs; else the list of those in flight.
    Raises NorthflankError, also if the list can't be read, or is longer than IN_FLIGHT_PAGES:
    then the 404 may be wrong.
    """
    stage = run.stage
    stage_path = stage.pipeline.project.slug, stage.pipeline.slug, stage.name
    try:
        return await connection.call(
            lambda nf: nf.get_run(*stage_path, run.run_id), request_seq=request_seq
        )
    except NotFound as error:
        if run.removed_at is not None or stage.has_flow is False:
            return None
        not_found = error
    for page_number in range(1, IN_FLIGHT_PAGES + 1):
        page = await _request_list(connection, run, page_number, request_seq)
        if any(api_run.id == run.run_id for api_run in page.items):
            raise UnexpectedResponse(
                "Northflank lists this run but returns 404 for it.", http_status=404
            )
        if run.concluded or not page.has_next:
            return None
        if any(api_run.concluded for api_run in page.items):
            break  # the server ignores `concluded`: the list of all runs has no near end
    raise not_found


async def _request_list(
    connection: Connection, run: Run, page_number: int, request_seq: int
) -> Page[ApiRun]:
    """Return a page of the list that a run should be in: for one in flight, of those in flight."""
    stage = run.stage
    return await connection.call(
        lambda nf: nf.list_runs(
            stage.pipeline.project.slug,
            stage.pipeline.slug,
            stage.name,
            page=page_number,
            concluded=None if run.concluded else False,
            per_page=PER_PAGE,
        ),
        request_seq=request_seq,
    )
