"""What is aborted: a run, or a job run or build that it has left running. All that differs."""

import asyncio
from datetime import datetime
from typing import Any

from django.db.models import Q

from dashboard.models import Abort, Run, Work
from dashboard.models.runs import mark_changed
from dashboard.northflank import NorthflankClient, RunDetail, Unreachable
from dashboard.sync import left_running
from dashboard.sync.run_reader import read_run
from dashboard.upstream.connection import Connection


async def send(nf: NorthflankClient, abort: Abort, deadline: float) -> RunDetail | None:
    """Send an abort; return the run in the answer, None of a job run or build: it has no content.

    Raises NorthflankError.
    """
    stage = abort.run.stage
    project, pipeline = stage.pipeline.project.slug, stage.pipeline.slug
    if abort.work is not None:
        await nf.abort_work(project, left_running.ref(abort.work), deadline=deadline)
        return None
    return await nf.abort_run(project, pipeline, stage.name, abort.run.run_id, deadline=deadline)


async def read(upstream: Connection, abort: Abort, time_limit: float) -> Run | Work | None:
    """Read what is aborted within `time_limit` seconds, and return its row; None if it is gone.

    Raises NorthflankError.
    """
    try:
        async with asyncio.timeout(time_limit):
            if abort.work is not None:
                return await left_running.read_again(upstream, abort.run, abort.work)
            return await read_run(upstream, abort.run)
    except TimeoutError:
        kind = "run" if abort.work is None else "job run or build"
        message = f"The {kind} could not be read within {time_limit:g} seconds."
        raise Unreachable(message, may_have_arrived=True, cause="timeout") from None


def mark_abort_changed(abort: Abort, *, read_at: datetime) -> None:
    """Give the run of an abort a new version, and have what is aborted read at a time.

    Call it inside the writing transaction, first: it locks the change counter.
    """
    if abort.work is None:
        mark_changed([abort.run_id], next_detail_sync_at=read_at)
    else:
        mark_changed([abort.run_id])
        Work.objects.filter(pk=abort.work.pk).update(next_sync_at=read_at)


def may_be_resent() -> Q:
    """Return the condition on aborts that what they abort goes on, and is not being aborted."""
    running = Run.objects.in_flight().exclude(status="aborting")
    return Q(work=None, run__in=running) | Q(work__in=Work.objects.running())


def log_fields(abort: Abort) -> dict[str, Any]:
    """Return the fields of a log event that name what is aborted, and by whom."""
    work = {} if abort.work is None else {"work": abort.work.work_id}
    return {"run": abort.run.run_id, **work, "by": abort.username}
