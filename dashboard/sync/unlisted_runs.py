"""Schedule the reads of runs beside the plan: those missing from a list, unread or failing ones."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import cache

import structlog
from django.db import transaction
from django.db.models import BigIntegerField, Exists, OuterRef, Q, TextField
from django.db.models.functions import Least

from dashboard.db.prepared import Keys, Parameter, PreparedQuery, PreparedUpdate, parameters
from dashboard.models import Dismissal, RequestCounter, Run
from dashboard.models.catalog import StageQuerySet
from dashboard.models.runs import RunQuerySet, mark_changed
from dashboard.northflank import NorthflankError
from dashboard.northflank import Run as ApiRun
from dashboard.sync import baselines, schedule

log = structlog.get_logger(__name__)

_STAGE = Parameter("stage", BigIntegerField())
_RUN_IDS = Keys("run_ids", TextField())


def schedule_reread(
    stages: StageQuerySet, moment: datetime, *, with_dismissed: bool = True
) -> None:
    """Make due the details of all runs of these stages that are not known to have concluded."""
    unconcluded = Run.objects.filter(stage__in=stages, concluded=False, next_detail_sync_at=None)
    may_go_on = unconcluded.filter(Q(in_flight=True) | Q(removed_at__isnull=False))
    if not with_dismissed:
        may_go_on = may_go_on.exclude(pk__in=Dismissal.objects.open().values("run"))
    # Each gets all its tries again.
    may_go_on.update(next_detail_sync_at=moment, failures=Least("failures", 1))


def back_off(run_pk: int, error: NorthflankError, moment: datetime) -> None:
    """Schedule the retry of a run that could not be read, after a backoff that grows each time.

    A run that has ended, or was dismissed, is given up after a few tries; one that somebody views
    is not. A detail needed only for the baseline is not retried: the next success serves as well.
    """
    if Run.objects.filter(baselines.SCHEDULED_DETAIL, pk=run_pk).update(
        failures=1, next_detail_sync_at=None
    ):
        return
    row = Run.objects.filter(pk=run_pk)
    open_dismissal = Dismissal.objects.open().filter(run=OuterRef("pk"))
    run_id, failures_before, has_concluded, is_dismissed, last_viewed_at = row.values_list(
        "run_id", "failures", "concluded", Exists(open_dismissal), "last_viewed_at"
    ).get()
    failures = failures_before + 1
    backoff: timedelta | None = schedule.failure_backoff(failures, error.cause)
    is_over = has_concluded or is_dismissed
    if is_over and not schedule.is_watched(last_viewed_at, moment):
        backoff = schedule.ended_run_backoff(failures)
    next_detail_sync_at = None if backoff is None else moment + backoff
    if failures_before:
        # Not if it has ended meanwhile: its final detail has all its tries.
        row.filter(failures=failures_before, concluded=has_concluded).update(
            failures=failures, next_detail_sync_at=next_detail_sync_at
        )
    else:  # its page says so from now on
        with transaction.atomic():
            mark_changed([run_pk], failures=failures, next_detail_sync_at=next_detail_sync_at)
        log.warning("run.read_failed", run=run_id, cause=error.cause, message=str(error))


def retry_on_recovery(run_pk: int, moment: datetime) -> None:
    """Make a run due now: it is read once the account-wide outage is over."""
    Run.objects.filter(pk=run_pk).update(next_detail_sync_at=moment)


def schedule_unlisted(
    stage_id: int,
    api_runs: Iterable[ApiRun],
    *,
    requested_at: datetime,
    request_seq: int | None = None,
) -> None:
    """Make due the details of tracked runs that are missing from their stage's list."""
    _unlisted_update().execute(
        stage=stage_id,
        run_ids=[run.id for run in api_runs],
        seq=RequestCounter.take_next() if request_seq is None else request_seq,
        next_detail_sync_at=requested_at,
    )


def count_unlisted(stage_id: int, api_runs: Iterable[ApiRun], request_seq: int) -> int:
    """Return the number of details that `schedule_unlisted` would make due."""
    run_ids = [run.id for run in api_runs]
    return len(_unlisted_query().fetch(stage=stage_id, run_ids=run_ids, seq=request_seq))


@cache
def _unlisted_query() -> PreparedQuery:
    return PreparedQuery(_unlisted().order_by().values_list("pk"))


@cache
def _unlisted_update() -> PreparedUpdate:
    return PreparedUpdate(_unlisted(), **parameters(Run, ["next_detail_sync_at"]))


def _unlisted() -> RunQuerySet:
    seq = Parameter("seq", BigIntegerField())
    unlisted = Run.objects.tracked().filter(stage=_STAGE, request_seq__lt=seq)
    return unlisted.exclude(run_id__in=_RUN_IDS).filter(next_detail_sync_at=None)
