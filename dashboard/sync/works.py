"""Read from Northflank the job runs and builds that steps wait for, and store them."""

from datetime import datetime, timedelta
from typing import Any

from django.db import transaction

from dashboard.db import threads as db_threads
from dashboard.db.threads import run_in_db_thread
from dashboard.models import ChangeCounter, Run, Work
from dashboard.models.runs import mark_changed
from dashboard.northflank import NotFound, WorkRef
from dashboard.northflank import Work as ApiWork
from dashboard.upstream.connection import Connection

MAX_LINE_AGE = timedelta(minutes=1)  # by which the stored time of the last line may be too old


async def read_work(
    connection: Connection,
    run: Run,
    step_key: str,
    ref: WorkRef,
    *,
    is_probable: bool = False,
    for_logs: bool = False,
) -> Work | None:
    """Read what a step of a run names, and return its row; None if Northflank has no such thing.

    Raises NorthflankError. `for_logs` as in `Connection.call_aside`.
    """
    requested_at = db_threads.now()
    project_id = run.stage.pipeline.project.slug
    try:
        work = await connection.call_aside(
            lambda nf: nf.get_work(project_id, ref), for_logs=for_logs
        )
    except NotFound:
        return None
    return await run_in_db_thread(
        store, run.pk, step_key, ref, work, requested_at=requested_at, is_probable=is_probable
    )


def store(
    run_pk: int,
    step_key: str,
    ref: WorkRef,
    work: ApiWork,
    *,
    requested_at: datetime,
    is_probable: bool = False,
) -> Work:
    """Store what was read of a step's work, and return its row; open pages show what changed.

    What was read earlier than the row changes nothing.
    """
    values: dict[str, Any] = {
        "step_key": step_key,
        "owner_kind": ref.owner_kind,
        "is_probable": is_probable,
        "name": work.name,
        "status": work.status,
        "concluded": work.concluded,
        "started_at": work.started_at,
        "ended_at": work.ended_at,
        "removed_at": None,
        "error": "",
    }
    with transaction.atomic():
        ChangeCounter.lock()  # or it might compare with an outdated row
        key = {"run_id": run_pk, "kind": ref.kind, "owner_id": ref.owner_id, "work_id": work.id}
        row = Work.objects.filter(**key).first()
        if row is not None and row.synced_at >= requested_at:
            return row
        changed = {
            name: value
            for name, value in values.items()
            if row is None or getattr(row, name) != value
        }
        is_new = row is None
        row = row or Work(**key)
        for name, value in (changed | {"synced_at": requested_at}).items():
            setattr(row, name, value)
        # Without what others may write at the same time: when it is due.
        row.save(update_fields=None if is_new else [*changed, "synced_at"])
        if changed:
            mark_changed([run_pk])
    return row


def store_last_line(work: Work, at: datetime) -> None:
    """Store the time of the last line of a log, for pages and the API, which show it.

    Not each one of a log that goes on: it may be a minute too old, as each is a change of pages.
    """
    known_at, now = work.last_line_at, db_threads.now()
    is_old = known_at is None or max(at - known_at, now - at) > MAX_LINE_AGE
    if at == known_at or not is_old:
        return
    with transaction.atomic():
        mark_changed([work.run_id])  # first, as it locks the change counter
        Work.objects.filter(pk=work.pk).update(last_line_at=at)
    work.last_line_at = at
