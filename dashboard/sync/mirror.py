"""Mirror Northflank's runs into rows; nothing else stores what Northflank reports of a run.

Only what changed is written. Others write what is ours of a run, such as its severity or schedule.

Each request has a number (RequestCounter), and a row stores the number of the request that it was
read with. An answer to an earlier request changes nothing, so a slow list can't undo what was read
after an abort. Time does not order answers: `requested_at` is what pages show. An answer without a
number counts as the newest.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import msgspec
import structlog
from django.db import transaction
from django.db.models import BigIntegerField, Exists, OuterRef, Q, TextField
from django.db.models.functions import Least

from dashboard.db.prepared import (
    Keys,
    Parameter,
    PreparedModels,
    PreparedQuery,
    PreparedUpdate,
    parameters,
    update_row,
)
from dashboard.db.threads import now
from dashboard.models import (
    Abort,
    Acknowledgement,
    ChangeCounter,
    Dismissal,
    RequestCounter,
    Run,
    Stage,
    StageTiming,
)
from dashboard.models.catalog import StageQuerySet
from dashboard.models.runs import RunQuerySet, mark_changed
from dashboard.northflank import Node, NorthflankError, RunDetail
from dashboard.northflank import Run as ApiRun
from dashboard.runs import acknowledgement_rules, overdue, statuses, steps
from dashboard.sync import baselines, plan, schedule

log = structlog.get_logger(__name__)

_UPSERT_FIELDS = [
    "name",
    "description",
    "status",
    "concluded",
    "created_at",
    "started_at",
    "concluded_at",
    "updated_at",
    "in_flight",
    "removed_at",
    "synced_at",
    "request_seq",
    "version",
    "next_detail_sync_at",
    "status_since",
    "approval_since",
    "aborting_since",
    "abort_severity",
    "overdue_severity",
    "overdue_reason",
]
# A removed run in flight is read again after the time since its removal, within these bounds.
REMOVED_RETRY_MIN, REMOVED_RETRY_MAX = timedelta(minutes=10), timedelta(hours=6)
# A run that is removed or not tracked may have ended: neither it nor its abort is overdue, and it
# waits for no approval.
_NOT_OVERDUE: dict[str, Any] = {
    "overdue_severity": 0,
    "overdue_reason": "",
    "approval_since": None,
    "abort_severity": 0,
}
_unknown_statuses: set[str] = set()  # unknown statuses already logged by this process


@dataclass(frozen=True, slots=True)
class MirrorResult:
    """How many runs a list added and changed."""

    new: int
    changed: int


def apply_runs(
    stage_id: int,
    api_runs: Iterable[ApiRun],
    *,
    requested_at: datetime,
    request_seq: int | None = None,
) -> MirrorResult:
    """Mirror the runs of a list; unchanged rows get no new version."""
    by_id = {run.id: run for run in api_runs}
    with transaction.atomic():
        ChangeCounter.lock()  # or it might compare with an outdated row
        seq = _take_seq(request_seq)
        stored = _listed_runs_query().fetch(stage=stage_id, run_ids=by_id)
        existing = {run.run_id: run for run in stored}
        rows: list[Run] = []
        unchanged: list[int] = []
        has_unknown = len(existing) < len(by_id)
        pruned_until = _pruned_until(stage_id) if has_unknown else None
        for run_id, api_run in by_id.items():
            old = existing.get(run_id)
            if old is not None and old.request_seq > seq:
                continue
            if old is None and ended_before(api_run, pruned_until):
                continue
            if old is None or _is_changed(api_run, old, requested_at):
                row = _build_row(stage_id, api_run, old, requested_at, seq)
                row.next_detail_sync_at = _next_detail_sync_at(row, old)
                rows.append(row)
            elif old.in_flight:
                unchanged.append(old.pk)
        _save_rows(rows, existing)
        if unchanged:
            _unchanged_update().execute(runs=unchanged, synced_at=requested_at, request_seq=seq)
    new = sum(row.run_id not in existing for row in rows)
    return MirrorResult(new=new, changed=len(rows) - new)


_STAGE = Parameter("stage", BigIntegerField())
_RUN_IDS = Keys("run_ids", TextField())


@cache
def _listed_runs_query() -> PreparedModels[Run]:
    return PreparedModels(Run.objects.filter(stage=_STAGE, run_id__in=_RUN_IDS).defer("steps"))


@cache
def _unchanged_update() -> PreparedUpdate:
    fields = parameters(Run, ["synced_at", "request_seq"])
    return PreparedUpdate(Run.objects.filter(pk__in=Keys("runs")), **fields)


def ended_before(api_run: ApiRun, limit: datetime | None) -> bool:
    """Return whether a run is known to have ended before `limit`: see Run.ended_at."""
    ended_at = api_run.concluded_at or api_run.updated_at or api_run.created_at
    if not api_run.concluded or ended_at is None or limit is None:
        return False
    return ended_at < limit


def _pruned_until(stage_id: int) -> datetime | None:
    pruned_until: datetime | None
    [(pruned_until,)] = _pruned_query().fetch(stage=stage_id)
    return pruned_until


@cache
def _pruned_query() -> PreparedQuery:
    return PreparedQuery(Stage.objects.filter(pk=_STAGE).values_list("pruned_until"))


def apply_detail(
    stage_id: int, run_detail: RunDetail, *, requested_at: datetime, request_seq: int | None = None
) -> Run:
    """Mirror one run with its steps; return its row."""
    with transaction.atomic():
        ChangeCounter.lock()
        seq = _take_seq(request_seq)
        stored = Run.objects.filter(stage_id=stage_id, run_id=run_detail.run.id)
        row = stored.first()
        if row is None:
            _save_rows([_build_row(stage_id, run_detail.run, None, requested_at, seq)], {})
            row = stored.get()
        _apply_detail(row, run_detail, requested_at, seq)
    return row


def apply_abort_answer(
    abort: Abort,
    run_detail: RunDetail,
    *,
    answered_at: datetime,
    request_seq: int,
    version: int,
    is_latest: bool,
) -> Run:
    """Mirror the run in Northflank's answer to an abort; return its row with its stage.

    Call it in the transaction that stores the answer and has taken `version`. The answer to
    request `request_seq` counts as the newest, unless the run's end was read with a later one. The
    run gets the version in any case, as its abort has changed, and is due to be read now: the next
    regular read may be seconds away. `is_latest`: the run has no later abort.
    """
    [row] = _run_query().fetch(run=abort.run_id)
    row.stage = abort.run.stage
    is_overtaken = row.concluded and row.request_seq > request_seq
    seq = request_seq if is_overtaken else RequestCounter.take_next()
    _apply_detail(
        row,
        run_detail,
        answered_at,
        seq,
        latest_aborts={row.pk: abort} if is_latest else None,
        visible_changes={"next_detail_sync_at": answered_at, "version": version},
    )
    return row


@cache
def _run_query() -> PreparedModels[Run]:
    return PreparedModels(Run.objects.filter(pk=Parameter("run", BigIntegerField())))


def _apply_detail(
    row: Run,
    run_detail: RunDetail,
    requested_at: datetime,
    seq: int,
    *,
    latest_aborts: dict[int, Abort] | None = None,
    visible_changes: dict[str, Any] | None = None,
) -> None:
    """Apply a detail to a run's row, as just read, here and in the database.

    `latest_aborts` as for `_save_rows`. `visible_changes` are stored whatever the detail shows, and
    contain a new version.
    """
    updates = visible_changes or {}
    if row.detail_request_seq > seq:
        if updates:
            update_row(Run, row.pk, **updates)
        return
    is_outdated = row.request_seq > seq  # by a list: only the steps are news
    api_run = run_detail.run
    new = row if is_outdated else _build_row(row.stage_id, api_run, row, requested_at, seq)
    # An answer without steps does not remove them.
    root = run_detail.root or steps.decode(row.steps)
    updates |= _detail_fields(new, root, requested_at, seq)
    if root is None:
        updates["steps_removed_at"] = row.steps_removed_at
    has_new_steps = any(getattr(row, field) != updates[field] for field in _STEP_FIELDS)
    if has_new_steps:
        severity, reason = _assess_overdue(new, root, requested_at)
        updates |= {"overdue_severity": severity, "overdue_reason": reason}
    if not is_outdated and _is_changed(api_run, row, requested_at):
        is_final = new.concluded and run_detail.root is not None
        schedule_fields = {"next_detail_sync_at": None} if is_final else {}
        updates = _save_rows([new], {row.run_id: row}, schedule_fields | updates, latest_aborts)
    else:
        if not is_outdated:
            updates |= {"synced_at": requested_at, "request_seq": seq}
        # A row whose step was read before its status shows less (runs/summary.py).
        was_older = row.detail_synced_at is not None and row.detail_synced_at < row.status_since
        if not visible_changes and (has_new_steps or row.failures or was_older):
            updates["version"] = ChangeCounter.take(1)
        update_row(Run, row.pk, **updates)
    is_for_baseline = (
        row.status == "success"
        and row.concluded
        and not row.has_final_detail
        and row.last_viewed_at is None
    )
    if row.failures and not is_for_baseline:  # whose failure is not logged either: see back_off
        log.info("run.recovered", run=row.run_id)
    tree = updates["steps"]
    # Steps read before the run's end do not count, even if they are the same.
    has_news = tree != row.steps or not row.has_final_detail
    if new.status == "success" and tree is not None and has_news:
        baselines.update_baseline(row.stage_id, now())
    for name, value in updates.items():
        setattr(row, name, value)
    if not row.in_flight:
        row.refresh_from_db(fields=["ended_at"])  # computed by the database


_STEP_FIELDS = ("steps", "step", "step_key", "step_started_at")


def _detail_fields(run: Run, root: Node | None, requested_at: datetime, seq: int) -> dict[str, Any]:
    """Return the fields that only a run's detail has; `run` has the others, as just read."""
    node = steps.current(root, run.status) if root is not None and run.in_flight else None
    return {
        # Round trip through JSON, so that it compares equal to the stored value.
        "steps": msgspec.json.decode(msgspec.json.encode(root)),
        "steps_removed_at": None,
        "step": steps.describe(node) if node else "",
        "step_key": steps.key(node) if node else "",
        "step_started_at": node.started_at if node else None,
        "detail_synced_at": requested_at,
        "detail_request_seq": seq,
        "failures": 0,
    }


def mark_removed(run_pk: int, *, requested_at: datetime, request_seq: int | None = None) -> None:
    """Mark a run as removed from Northflank; its last known data is kept.

    A run that had not concluded stays in flight until it is dismissed, and is read again at growing
    intervals.
    """
    seq = _take_seq(request_seq)
    row = Run.objects.filter(pk=run_pk)
    _mark_removed(row, requested_at, seq)
    in_flight = row.in_flight().filter(request_seq__lte=seq)
    removed_since = in_flight.values_list("removed_at", flat=True).first()
    if removed_since is not None:
        interval = min(max(REMOVED_RETRY_MIN, requested_at - removed_since), REMOVED_RETRY_MAX)
        row.update(next_detail_sync_at=requested_at + interval, failures=0)
    else:  # concluded or dismissed: no further reads
        row.filter(in_flight=False).update(next_detail_sync_at=None, failures=0)


def mark_orphaned(requested_at: datetime, request_seq: int | None = None) -> None:
    """Mark runs in flight as removed if Northflank no longer lists their pipeline."""
    orphaned = Run.objects.in_flight().exclude(stage__in=Stage.objects.listed())
    _mark_removed(orphaned, requested_at, _take_seq(request_seq))


def _mark_removed(runs: RunQuerySet, requested_at: datetime, seq: int) -> None:
    with transaction.atomic():
        ChangeCounter.lock()  # no list comes between
        older = list(runs.filter(request_seq__lte=seq).values_list("pk", "removed_at"))
        newly_removed = [pk for pk, removed_at in older if removed_at is None]
        mark_changed(
            newly_removed,
            removed_at=requested_at,
            request_seq=seq,
            next_detail_sync_at=None,
            **_NOT_OVERDUE,
        )
        _close_open_records([pk for pk, _ in older])


def _close_open_records(run_keys: Iterable[int]) -> None:
    not_in_flight = Run.objects.filter(pk__in=run_keys, in_flight=False).values_list(
        "pk", flat=True
    )
    Acknowledgement.objects.all().end_for_runs(list(not_in_flight), now())
    for run_pk in run_keys:
        Abort.objects.all().settle_for_removed_run(run_pk, now())


def stop_tracking(runs: RunQuerySet, moment: datetime) -> None:
    """Stop tracking these runs, since the settings no longer include their project."""
    with transaction.atomic():
        run_keys = list(runs.in_flight().values_list("pk", flat=True))
        mark_changed(
            run_keys, removed_at=moment, in_flight=False, next_detail_sync_at=None, **_NOT_OVERDUE
        )
        _close_open_records(run_keys)


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


def _take_seq(request_seq: int | None) -> int:
    if request_seq is not None:
        return request_seq
    ChangeCounter.lock()  # before the row of the other counter
    return RequestCounter.take_next()


def _build_row(
    stage_id: int, api_run: ApiRun, old: Run | None, requested_at: datetime, seq: int
) -> Run:
    """Return a new row with the fields of a list, as read with request `seq`."""
    row = Run(
        stage_id=stage_id,
        run_id=api_run.id,
        **_listed_fields(api_run, old, requested_at),
        first_synced_at=old.first_synced_at if old else requested_at,
        synced_at=requested_at,
        request_seq=seq,
        next_detail_sync_at=old.next_detail_sync_at if old else None,
        status_since=old.status_since if old and old.status == api_run.status else requested_at,
        approval_since=old.approval_since if old and old.status == api_run.status else None,
        aborting_since=_aborting_since(api_run, old, requested_at),
        abort_severity=old.abort_severity if old and not api_run.concluded else 0,
        overdue_severity=old.overdue_severity if old and not api_run.concluded else 0,
        overdue_reason=old.overdue_reason if old and not api_run.concluded else "",
    )
    if old is not None and row.overdue_severity and old.status != row.status:
        severity, reason = _assess_overdue(row, steps.decode(old.steps), requested_at)
        if severity <= old.overdue_severity:  # else the check reads the steps before
            row.overdue_severity, row.overdue_reason = severity, reason
    return row


def _next_detail_sync_at(row: Run, old: Run | None) -> datetime | None:
    """Return when to read the detail of a run that a list shows as changed; None: not planned.

    With another status, a run in flight is at another step than the one that is known.
    """
    if old is None or not row.in_flight or old.detail_synced_at is None or old.failures:
        return row.next_detail_sync_at
    if row.status == old.status:
        return row.next_detail_sync_at
    due_at = row.synced_at
    if "approval_wait" not in {row.status, old.status}:  # which somebody may have to answer
        due_at = max(due_at, old.detail_synced_at + plan.MIN_STEPS_AGE)
    return min(due_at, row.next_detail_sync_at or due_at)


def _is_changed(api_run: ApiRun, old: Run, requested_at: datetime) -> bool:
    fields = _listed_fields(api_run, old, requested_at)
    return any(getattr(old, name) != value for name, value in fields.items())


def _listed_fields(api_run: ApiRun, old: Run | None, requested_at: datetime) -> dict[str, Any]:
    """Return the fields that a list has of a run; if one changes, the run has changed."""
    if api_run.status not in statuses.RUN_STATUSES and api_run.status not in _unknown_statuses:
        _unknown_statuses.add(api_run.status)
        log.warning("run.unknown_status", status=api_run.status[:100])
    return {
        # What a run has does not go away: an answer without it, or with another type, is odd.
        "name": api_run.name or (old.name if old else ""),
        "description": api_run.description or (old.description if old else ""),
        "status": api_run.status,
        "concluded": api_run.concluded,
        "created_at": api_run.created_at or (old.created_at if old else requested_at),
        "started_at": api_run.started_at or (old.started_at if old else None),
        "concluded_at": api_run.concluded_at
        or (old.concluded_at if old and api_run.concluded else None),
        "updated_at": _updated_at(api_run, old, requested_at),
        "in_flight": not api_run.concluded,
        "removed_at": None,
    }


def _updated_at(api_run: ApiRun, old: Run | None, requested_at: datetime) -> datetime | None:
    """Return when a run was last updated; None if Northflank has not said so.

    Of a run that ended without `concludedAt`, this counts as its end (`Run.ended_at`). `updatedAt`
    may be as old as the run: if it is older than our last read of the run in flight, the end is
    when it was first read as concluded.
    """
    updated_at = api_run.updated_at or (old.updated_at if old else None)
    if old is None or not api_run.concluded or api_run.concluded_at or old.concluded_at:
        return updated_at
    if old.concluded:
        return max(filter(None, (updated_at, old.updated_at)), default=None)
    return updated_at if updated_at and updated_at > old.synced_at else requested_at


def _aborting_since(api_run: ApiRun, old: Run | None, requested_at: datetime) -> datetime | None:
    """Return when a run's abort began according to Northflank's `updatedAt`, or None if unknown.

    `updatedAt` may not be the last change. It is used only for a run that is aborting, and only if
    it is later than the run's creation and than our last read of the run with another status.
    """
    if api_run.status != "aborting":
        return None
    lower_bound, earlier = api_run.created_at or (old.created_at if old else None), None
    if old is not None and old.status == "aborting":
        if old.status_since > old.first_synced_at:
            return old.aborting_since  # the first read of this status had the best estimate
        earlier = old.aborting_since
    elif old is not None:
        lower_bound = max(lower_bound or old.synced_at, old.synced_at)
    updated_at = api_run.updated_at
    if (
        updated_at is None
        or updated_at > requested_at
        or (lower_bound is not None and updated_at <= lower_bound)
    ):
        return earlier
    return min(updated_at, earlier or updated_at)


def _backdate_aborting(row: Run, old: Run, latest_abort: Abort | None) -> None:
    """Backdate `aborting_since` of a newly aborting run to our own abort request, if earlier."""
    is_newly_aborting = row.status == "aborting" and old.status != "aborting"
    if is_newly_aborting and latest_abort is not None and latest_abort.settled_at is None:
        abort_started_at = latest_abort.already_aborting_since or latest_abort.requested_at
        row.aborting_since = min(abort_started_at, row.aborting_since or abort_started_at)


def _assess_overdue(run: Run, root: Node | None, moment: datetime) -> tuple[int, str]:
    """Return the overdue severity and reason of a run from the data just read.

    A run already marked overdue is assessed again, so that the mark neither outlives its cause nor
    flickers. Other runs are marked by overdue_checker.py only.
    """
    if not run.overdue_severity:
        return 0, ""
    timing = StageTiming.objects.filter(stage=run.stage_id).first()
    timers = overdue.timers(run, root, timing)
    finding = overdue.worst_finding(run, root, timers, moment)
    return (finding.severity, str(finding.reason)) if finding else (0, "")


def _save_rows(
    rows: list[Run],
    existing: dict[str, Run],
    detail_fields: dict[str, Any] | None = None,
    latest_aborts: dict[int, Abort] | None = None,
) -> dict[str, Any]:
    """Save new and changed rows of one stage, with all that depends on a change.

    `existing` are the rows as they were, by run id. With `detail_fields` there is one row, which
    exists; they are saved with it, and may contain its new version. Return all fields that it was
    given. `latest_aborts` are those of the changed runs, by the run's key, if the caller has them.
    """
    if not rows:
        return {}
    requested_at = rows[0].synced_at
    if latest_aborts is None:
        latest_aborts = _load_latest_aborts(rows, existing)
    version = (detail_fields or {}).get("version")
    first = ChangeCounter.take(len(rows)) if version is None else version
    # Lists come newest first; the oldest change gets the smallest number.
    for offset, row in enumerate(reversed(rows)):
        row.version = first + offset
    previous = [(row, existing[row.run_id]) for row in rows if row.run_id in existing]
    for row, old in previous:
        _backdate_aborting(row, old, latest_aborts.get(old.pk))
    newly_concluded = [(row, old) for row, old in previous if row.concluded and old.in_flight]
    detail_wanted = _wanting_final_detail([old.pk for _, old in newly_concluded])
    for row, _ in newly_concluded:
        is_detail_wanted = row.run_id in detail_wanted or row.status == "failure"
        row.next_detail_sync_at = requested_at if is_detail_wanted else None
    fields: dict[str, Any] = {}
    if detail_fields is None:
        Run.objects.bulk_create(
            rows,
            update_conflicts=True,
            unique_fields=["stage", "run_id"],
            update_fields=_UPSERT_FIELDS,
        )
        _end_failures([old for row, old in newly_concluded if row.next_detail_sync_at is None])
        _restart_failures([old for row, old in newly_concluded if row.next_detail_sync_at])
    else:
        [(row, old)] = previous
        fields = {name: getattr(row, name) for name in _UPSERT_FIELDS} | detail_fields
        update_row(Run, old.pk, **fields)
    for row, old in previous:
        abort = latest_aborts.get(old.pk)
        if abort is not None and _status_key(row) != _status_key(old):
            abort.apply_run_status(row.status, concluded=row.concluded, at=now())
    reappeared = [old.pk for _, old in previous if old.removed_at is not None]
    Dismissal.objects.all().end_for_runs(reappeared, now())
    resolved = [old.pk for row, old in newly_concluded if acknowledgement_rules.is_resolved(row)]
    Acknowledgement.objects.all().end_for_runs(resolved, now())
    stage_id = rows[0].stage_id
    if any(row.status == "success" and row.concluded for row in rows):
        baselines.update_baseline(stage_id, now())
    update_row(Stage, stage_id, last_run_change_at=requested_at)
    return fields


def _end_failures(ended: list[Run]) -> None:
    """End the failures of these runs, whose details are not read any more."""
    failing = [run for run in ended if run.failures]
    if failing:
        Run.objects.filter(pk__in=[run.pk for run in failing]).update(failures=0)
    for run in failing:
        log.info("run.recovered", run=run.run_id)


def _restart_failures(ended: list[Run]) -> None:
    """Give the final details of these runs all their tries, whatever failed before the end."""
    failing = [run.pk for run in ended if run.failures]
    if failing:
        Run.objects.filter(pk__in=failing).update(failures=1)


def _load_latest_aborts(rows: list[Run], existing: dict[str, Run]) -> dict[int, Abort]:
    """Return the latest aborts of those runs whose status, or existence, has changed."""
    changed = [
        old.pk
        for row in rows
        if (old := existing.get(row.run_id)) is not None and _status_key(row) != _status_key(old)
    ]
    return Abort.objects.all().latest_by_run(changed) if changed else {}


def _status_key(run: Run) -> tuple[str, bool, bool]:
    return run.status, run.concluded, run.removed_at is not None  # a removed run may reappear


def _wanting_final_detail(keys: list[int]) -> set[str]:
    if not keys:
        return set()
    # The final detail has the end of each step: wanted if a run was viewed or aborted.
    is_wanted = Q(last_viewed_at__isnull=False) | Q(aborts__gt=0)
    return set(Run.objects.filter(is_wanted, pk__in=keys).values_list("run_id", flat=True))
