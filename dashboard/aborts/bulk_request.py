"""Check and record a bulk abort: which runs, by whom and why. Nothing is sent (bulk_send.py).

The list of runs is fixed by the request. Each run and its permission is checked again when its turn
comes.
"""

from collections.abc import Collection, Iterable
from operator import attrgetter
from uuid import UUID

import structlog
from django.db import IntegrityError, transaction
from django.utils.translation import gettext as _

from dashboard.aborts.request import (
    AbortRequest,
    NotAllowed,
    NotInFlight,
    check_reason,
    clean_reason,
)
from dashboard.accounts import permissions
from dashboard.db import threads as db_threads
from dashboard.models import BulkAbort, BulkAbortItem, Run
from dashboard.runs.overdue import NOT_STARTED_STATUSES

log = structlog.get_logger(__name__)

MAX_RUNS = 200  # runs of a bulk abort; a longer list would be confirmed without being read
MAX_RUNS_WITHOUT_COUNT = 5  # above it, and across projects, the number of runs has to be typed


class TooManyRuns(Exception):
    """More than MAX_RUNS runs were requested; the message states how many."""


class WrongCount(Exception):
    """The typed number of runs is missing or is not that of the request; nothing is recorded."""


def request_bulk_abort(
    run_keys: Iterable[int],
    abort_request: AbortRequest,
    idempotency_key: UUID,
    *,
    typed_count: str = "",
) -> BulkAbort:
    """Record a bulk abort of runs and return it: of each stage the queued runs first, newest first.

    Idempotent: the same `idempotency_key` returns the first bulk abort. Runs the user may not view
    are left out. `typed_count` is the number of `run_keys` as the user typed it, see
    `count_required`. Raise TooManyRuns, NotInFlight (no run is left), NotAllowed (the user may
    abort none of them), ReasonMissing or WrongCount.
    """
    if existing := BulkAbort.objects.filter(key=idempotency_key).first():
        return existing
    user_permissions = permissions.for_user(abort_request.user)
    unique_keys = list(dict.fromkeys(run_keys))
    runs = visible_runs(unique_keys, user_permissions)
    _check_request(runs, user_permissions)
    reason = clean_reason(abort_request.reason)
    check_reason(reason, [run.stage for run in runs])
    # The number is that of the confirmed list, also if some of its runs have ended since.
    if (typed_count or count_required(runs)) and typed_count != str(len(unique_keys)):
        raise WrongCount(_("Type the number of runs to confirm. Nothing was aborted."))
    now = db_threads.now()
    try:
        with transaction.atomic():
            bulk_abort = BulkAbort.objects.create(
                key=idempotency_key,
                **abort_request.model_fields(reason, now),
                claimed_at=now,
            )
            BulkAbortItem.objects.bulk_create(
                BulkAbortItem(bulk_abort=bulk_abort, position=position, run=run)
                for position, run in enumerate(_queues_from_their_end(runs), start=1)
            )
    except IntegrityError:  # a concurrent request with the same key was faster
        return BulkAbort.objects.get(key=idempotency_key)
    log.info("abort.bulk_requested", runs=len(runs), by=bulk_abort.username, reason=reason)
    return bulk_abort


def _queues_from_their_end(runs: Iterable[Run]) -> list[Run]:
    """Return the runs by stage, in an order in which no abort lets another of the runs start."""
    by_stage: dict[int, list[Run]] = {}
    for run in runs:
        by_stage.setdefault(run.stage_id, []).append(run)
    ordered = []
    for stage_runs in by_stage.values():
        queued = [run for run in stage_runs if run.status in NOT_STARTED_STATUSES]
        ordered += sorted(queued, key=attrgetter("created_at", "pk"), reverse=True)
        ordered += [run for run in stage_runs if run.status not in NOT_STARTED_STATUSES]
    return ordered


def count_required(runs: Collection[Run]) -> bool:
    """Return whether aborting `runs`, loaded with their stage, requires their number to be typed.

    It does for more than MAX_RUNS_WITHOUT_COUNT runs, and for runs of more than one project.
    """
    projects = {run.stage.pipeline.project_id for run in runs}
    return len(runs) > MAX_RUNS_WITHOUT_COUNT or len(projects) > 1


def visible_runs(run_keys: Iterable[int], user_permissions: permissions.Permissions) -> list[Run]:
    """Return the runs the user may view, without duplicates, in the order of `run_keys`."""
    keys = list(dict.fromkeys(run_keys))
    visible = Run.objects.filter(user_permissions.stage_filter("stage"), pk__in=keys)
    by_pk = {run.pk: run for run in visible.with_stage().without_detail()}
    return [by_pk[key] for key in keys if key in by_pk]


def too_many_text(count: int) -> str:
    """Return why `count` runs can't be aborted at once; empty if they can."""
    if count <= MAX_RUNS:
        return ""
    template = _("At most %(most)d runs can be aborted at once; there are %(count)d.")
    return template % {"most": MAX_RUNS, "count": count}


def _check_request(runs: list[Run], user_permissions: permissions.Permissions) -> None:
    """Raise NotInFlight (no runs), TooManyRuns or NotAllowed (the user may abort none)."""
    if not runs:
        raise NotInFlight(_("No runs selected."))
    if text := too_many_text(len(runs)):
        raise TooManyRuns(text)
    run_permissions = [user_permissions.abort_permission(run.stage) for run in runs]
    if not any(permission.allowed for permission in run_permissions):
        raise NotAllowed(run_permissions[0].denied_reason)
